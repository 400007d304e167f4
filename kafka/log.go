package kafka

import (
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/plugin/kzap"
	"go.uber.org/zap"
)

// stillAway is how often it is said that a broker cannot be reached.
const stillAway = time.Minute

// What the client says for each attempt, and for each partition.
const (
	saysUnreachable = "unable to open connection to broker"
	saysNoCommit    = "unable to commit offset for topic partition"
)

// clientLog gives the client's words to a log, but those that it repeats: it tries a broker that is away many times a
// second, and who commits is told of each partition that was refused.
type clientLog struct {
	kgo.Logger
	log  *zap.Logger
	mu   sync.Mutex
	away map[string]*absence // by address
}

// absence is a broker that cannot be reached.
type absence struct{ since, told time.Time }

// newLog makes the log of one client. The client tells of every join and metadata load at info, which is debugging to
// us, and of every request at debug, which is a flood to anyone.
func newLog(log *zap.Logger) *clientLog {
	log = log.Named("kafka")
	level := kgo.LogLevelWarn
	if log.Core().Enabled(zap.DebugLevel) {
		level = kgo.LogLevelInfo
	}
	return &clientLog{Logger: kzap.New(log, kzap.Level(level)), log: log, away: make(map[string]*absence)}
}

// Log implements kgo.Logger.
func (l *clientLog) Log(level kgo.LogLevel, msg string, fields ...any) {
	switch msg {
	case saysUnreachable:
		l.unreachable(fields)
		level = kgo.LogLevelDebug
	case saysNoCommit:
		level = kgo.LogLevelDebug
	}
	l.Logger.Log(level, msg, fields...)
}

// unreachable tells of a broker that is away, now and then.
func (l *clientLog) unreachable(fields []any) {
	named := make(map[any]any, len(fields)/2)
	for i := 0; i+1 < len(fields); i += 2 {
		named[fields[i]] = fields[i+1]
	}
	addr, _ := named["addr"].(string)
	err, _ := named["err"].(error)
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.away[addr]
	if a == nil {
		a = &absence{since: now}
		l.away[addr] = a
	}
	if now.Sub(a.told) < stillAway {
		return
	}
	a.told = now
	l.log.Warn("the broker is away, and is tried again", zap.String("addr", addr), zap.Time("since", a.since), zap.Error(err))
}

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (l *clientLog) OnBrokerConnect(meta kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err != nil {
		return
	}
	addr := net.JoinHostPort(meta.Host, strconv.Itoa(int(meta.Port)))
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.away[addr]; a != nil {
		delete(l.away, addr)
		l.log.Info("the broker is back", zap.String("addr", addr), zap.Duration("away", time.Since(a.since)))
	}
}
