package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/groups"
	"github.com/millrace/millrace/kafka"
)

// healthy is a cluster of three brokers with nothing wrong, for tests to spoil.
func healthy() *checkup {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	k := &checkup{
		now: now, cluster: kafka.Cluster{Seeds: []string{"k1:9092"}, Auth: kafka.SCRAM512("orders", "x")},
		seeds:    []reached{{addr: "k1:9092", id: -1}},
		brokers:  []reached{{addr: "k1:9092", id: 1}, {addr: "k2:9092", id: 2}, {addr: "k3:9092", id: 3}},
		versions: map[int32]brokerVersion{1: {"v4.1", 2, true, nil}, 2: {"v4.1", 2, true, nil}, 3: {"v4.1", 2, true, nil}},
		meta: kadm.Metadata{
			Cluster: "abc", Controller: 1, Brokers: kadm.BrokerDetails{{NodeID: 1}, {NodeID: 2}, {NodeID: 3}},
			Topics: kadm.TopicDetails{"shop.orders": {Topic: "shop.orders", AuthorizedOperations: []kadm.ACLOperation{kadm.OpRead}, Partitions: kadm.PartitionDetails{
				0: {Topic: "shop.orders", Leader: 1, Replicas: []int32{1, 2, 3}, ISR: []int32{1, 2, 3}},
			}}},
		},
		topicConfigs: map[string]map[string]string{"shop.orders": {
			"min.insync.replicas": "2", "unclean.leader.election.enable": "false", "retention.ms": "3600000", "cleanup.policy": "delete",
		}},
		brokerConfigs: map[string]string{"auto.create.topics.enable": "false"},
		dirs:          []kadm.DescribedLogDir{{Broker: 1, Dir: "/data", TotalBytes: 100 << 30, UsableBytes: 60 << 30}},
		groups: []groups.Group{{
			Summary: groups.Summary{ID: "shipping", State: "Stable"}, Members: []groups.Member{{ID: "m"}},
			Partitions: []groups.Partition{{Topic: "shop.orders", Start: 10, End: 30, Commit: &groups.Commit{Offset: 20}}},
		}},
		registries: []registryLook{{url: "http://r:8081", mode: "READWRITE", level: "BACKWARD"}},
		registryAt: "--registry", fileLimit: 65536,
	}
	return k
}

func TestDoctorJudges(t *testing.T) {
	t.Parallel()
	down := fmt.Errorf("reach Kafka at k2:9092: nothing listens there (%w)", &net.OpError{Op: "dial", Err: errors.New("refused")})
	tests := []struct {
		name  string
		spoil func(k *checkup)
		check string
		state state
		says  []string // in the line or in what to do
	}{
		{"nothing", func(*checkup) {}, "", stateOK, nil},
		{"a seed is down", func(k *checkup) { k.seeds = append(k.seeds, reached{addr: "k2:9092", id: -1, err: down}) }, "broker", stateBad, []string{"nothing listens", "take it out of --brokers"}},
		{"an address is not reached", func(k *checkup) { k.brokers[1].err = down }, "broker", stateBad, []string{"broker 2", "nothing listens", "advertised.listeners"}},
		{"a broker is slow", func(k *checkup) { k.brokers[1].took = 3 * time.Second }, "broker", stateWarn, []string{"k2:9092 (3.0s)"}},
		{"no broker answers", func(k *checkup) {
			k.seeds[0].err, k.cluster.Seeds, k.brokers, k.meta, k.newest = down, nil, nil, kadm.Metadata{}, nil
		}, "broker", stateBad, []string{"nothing listens"}},
		{"another cluster", func(k *checkup) { k.wantID = "xyz" }, "cluster", stateBad, []string{"abc", "xyz"}},
		{"no controller", func(k *checkup) { k.meta.Controller = -1 }, "cluster", stateBad, []string{"no controller"}},
		{"no description", func(k *checkup) { k.metaErr = errors.New("no") }, "cluster", stateBad, []string{"does not describe itself: no"}},
		{"mixed versions", func(k *checkup) { k.versions[2] = brokerVersion{"v4.0", 2, true, nil} }, "versions", stateWarn, []string{"Kafka v4.0 on 2", "Kafka v4.1 on 1, 3"}},
		{"old transactions", func(k *checkup) { k.versions[2] = brokerVersion{"v4.1", 1, true, nil} }, "versions", stateWarn, []string{"transaction.version is 1", "kafka-features.sh"}},
		{"no feature levels", func(k *checkup) { k.versions[2] = brokerVersion{"v4.1", -1, true, nil} }, "versions", stateWarn, []string{"transaction.version is not set"}},
		{"no new protocol", func(k *checkup) { k.versions[2] = brokerVersion{"v4.1", 2, false, nil} }, "versions", stateWarn, []string{"KIP-848"}},
		{"a partition is offline", func(k *checkup) { part(k, -1, 1) }, "partitions", stateBad, []string{"1 partition without a leader", "shop.orders/0"}},
		{"too few in sync", func(k *checkup) { part(k, 1, 1) }, "partitions", stateBad, []string{"writes fail", "shop.orders/0"}},
		{"one not in sync", func(k *checkup) { part(k, 1, 1, 2) }, "partitions", stateWarn, []string{"not in sync", "shop.orders/0"}},
		{"two replicas", func(k *checkup) {
			p := k.meta.Topics["shop.orders"].Partitions[0]
			p.Replicas, p.ISR = []int32{1, 2}, []int32{1, 2}
			k.meta.Topics["shop.orders"].Partitions[0] = p
			k.topicConfigs["shop.orders"]["min.insync.replicas"] = "1"
		}, "topics", stateWarn, []string{"fewer than 3 replicas: shop.orders", "replicas: 3"}},
		{"one broker stops writes", func(k *checkup) { k.topicConfigs["shop.orders"]["min.insync.replicas"] = "3" }, "topics", stateWarn, []string{"stops all writes: shop.orders"}},
		{"one in sync is enough", func(k *checkup) { k.topicConfigs["shop.orders"]["min.insync.replicas"] = "1" }, "topics", stateWarn, []string{"min.insync.replicas 1", "millrace topics apply"}},
		{"unclean", func(k *checkup) { k.topicConfigs["shop.orders"]["unclean.leader.election.enable"] = "true" }, "topics", stateWarn, []string{"lacks acknowledged events"}},
		{"settings are hidden", func(k *checkup) { k.topicErr = errors.New("no right") }, "topics", stateWarn, []string{"settings not seen: no right"}},
		{"topics by themselves", func(k *checkup) { k.brokerConfigs["auto.create.topics.enable"] = "true" }, "settings", stateWarn, []string{"mistyped"}},
		{"brokers' settings are hidden", func(k *checkup) { k.brokerErr = errors.New("no right") }, "settings", stateWarn, []string{"no right"}},
		{"records are lost", func(k *checkup) { k.groups[0].Partitions[0].Commit.Offset = 3 }, "groups", stateBad, []string{"deleted before a group read them: shipping (7)"}},
		{"records will be lost", func(k *checkup) {
			k.ages = map[groups.Key]time.Time{{Group: "shipping", Topic: "shop.orders"}: k.now.Add(-45 * time.Minute)}
		}, "groups", stateWarn, []string{"shipping (75% of the retention)"}},
		{"nobody consumes", func(k *checkup) { k.groups[0].Members = nil }, "groups", stateWarn, []string{"nobody consumes", "shipping (10)"}},
		{"a damaged commit", func(k *checkup) { k.groups[0].Partitions[0].Commit.Damaged = true }, "groups", stateWarn, []string{"millrace groups describe shipping"}},
		{"groups are hidden", func(k *checkup) { k.groupsErr = errors.New("no right") }, "groups", stateWarn, []string{"not seen: no right"}},
		{"anybody", func(k *checkup) {
			topic := k.meta.Topics["shop.orders"]
			topic.AuthorizedOperations = []kadm.ACLOperation{kadm.OpRead, kadm.OpWrite, kadm.OpAlter}
			k.cluster.Auth, k.meta.Topics["shop.orders"] = kafka.Auth{}, topic
		}, "permissions", stateWarn, []string{"whoever reaches the brokers may write"}},
		{"no rights", func(k *checkup) { k.meta.Topics = nil }, "permissions", stateWarn, []string{"SCRAM-SHA-512 as orders", "sees no topic"}},
		{"a full disk", func(k *checkup) { k.dirs[0].UsableBytes = 15 << 30 }, "disk", stateWarn, []string{"/data on broker 1 is 85% full: 15.0 GiB of 100.0 GiB"}},
		{"a fuller disk", func(k *checkup) { k.dirs[0].UsableBytes = 1 << 30 }, "disk", stateBad, []string{"99% full"}},
		{"disks are hidden", func(k *checkup) { k.dirs, k.dirsErr = nil, errors.New("no right") }, "disk", stateWarn, []string{"not seen: no right"}},
		{"the registry is down", func(k *checkup) { k.registries[0].err = errors.New("refused") }, "registry", stateBad, []string{"http://r:8081 does not answer: refused", "--registry"}},
		{"there is no registry", func(k *checkup) { k.registries[0].err, k.registryAt = errors.New("refused"), "" }, "registry", stateWarn, []string{"none is named"}},
		{"the registry takes nothing", func(k *checkup) { k.registries[0].mode = "READONLY" }, "registry", stateWarn, []string{"READONLY"}},
		{"the registry takes anything", func(k *checkup) { k.registries[0].level = "NONE" }, "registry", stateWarn, []string{"BACKWARD"}},
		{"the registry's clock", func(k *checkup) { k.registries[0].ahead = -8 * time.Second }, "clocks", stateWarn, []string{"8s behind"}},
		{"the registry's clock, more", func(k *checkup) { k.registries[0].ahead = time.Hour }, "clocks", stateBad, []string{"1h0m ahead of"}},
		{"a producer's clock", func(k *checkup) { k.newest = stamped(k, "shop.orders", 20*time.Second) }, "clocks", stateWarn, []string{"shop.orders (20s)", "who publish"}},
		{"the brokers' clock", func(k *checkup) { k.newest = stamped(k, "__consumer_offsets", 2*time.Minute) }, "clocks", stateBad, []string{"the brokers' clock is 2m0s ahead"}},
		{"few files", func(k *checkup) { k.fileLimit = 256 }, "machine", stateWarn, []string{"256", "ulimit"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			k := healthy()
			tt.spoil(k)
			found := false
			for _, f := range k.judge() {
				whole := f.Says + " → " + f.Do
				switch {
				case f.Says == "" || strings.ContainsAny(f.Says, "%\n") && !strings.Contains(f.Says, "% full") && !strings.Contains(f.Says, "% of") && !strings.Contains(f.Says, "at 40%"):
					t.Errorf("not a line: %+v", f)
				case f.Check == tt.check && f.State == tt.state && !slices.ContainsFunc(tt.says, func(s string) bool { return !strings.Contains(whole, s) }):
					found = true
				case f.State != stateOK:
					t.Errorf("more than was spoilt: %+v", f)
				}
			}
			if !found && tt.check != "" {
				t.Errorf("no %s line of %s with %q:\n%+v", tt.state, tt.check, tt.says, k.judge())
			}
		})
	}
}

// part spoils the one partition.
func part(k *checkup, leader int32, isr ...int32) {
	p := k.meta.Topics["shop.orders"].Partitions[0]
	p.Leader, p.ISR = leader, isr
	k.meta.Topics["shop.orders"].Partitions[0] = p
}

func stamped(k *checkup, topic string, ahead time.Duration) kadm.ListedOffsets {
	return kadm.ListedOffsets{topic: {0: {Topic: topic, Timestamp: k.now.Add(ahead).UnixMilli()}}}
}

func TestDoctorOfAHealthyWorld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	w.records(t, "shop.orders", "one")
	r := w.want(t, codeDone, "doctor")
	has(t, "stdout", r.out, "ok    broker        the broker answers: "+w.fake.ListenAddrs()[0], "ok    cluster       id ", "ok    partitions", "ok    registry", "compatibility BACKWARD", "ok    clocks", "warn  topics        the cluster is one broker", "→ for production")
	has(t, "stderr", r.err, " ok, ", "0 bad")
	r = w.want(t, codeDone, "doctor", "-o", "json")
	var doc struct {
		Millrace int
		Findings []finding
	}
	if err := json.Unmarshal([]byte(r.out), &doc); err != nil || doc.Millrace != 1 || len(doc.Findings) < 8 {
		t.Errorf("%v: %s", err, r.out)
	}
}

// Nobody answers: the doctor says so of each address, looks at what is left, and is done within the time.
func TestDoctorOfADeadCluster(t *testing.T) {
	t.Parallel()
	silent, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	w := &world{dir: t.TempDir(), env: map[string]string{"MILLRACE_REGISTRY": "http://" + silent.Addr().String()}}
	began := time.Now()
	r := w.want(t, codeFailed, "doctor", "-B", "127.0.0.1:1,"+silent.Addr().String())
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("took %s", took)
	}
	has(t, "stdout", r.out, "bad   broker        127.0.0.1:1: nothing listens there", "bad   broker        "+silent.Addr().String()+": no answer within 5s", "bad   registry", "ok    machine")
}

// One of three brokers is away: what does not need it is seen nevertheless.
func TestDoctorWithABrokerAway(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.SeedTopics(3, "t"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	fake.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
		fake.KeepControl()
		resp, ok := r.ResponseKind().(*kmsg.MetadataResponse)
		if !ok {
			return nil, nil, false
		}
		for i, addr := range fake.ListenAddrs() {
			b := kmsg.NewMetadataResponseBroker()
			b.NodeID, b.Host = int32(i), "127.0.0.1"
			_, port, _ := net.SplitHostPort(addr)
			b.Port = portOf(t, port)
			if i == 2 {
				b.Port = 1 // nobody listens there
			}
			resp.Brokers = append(resp.Brokers, b)
		}
		resp.ClusterID, resp.ControllerID = new("fake"), 0
		topic := kmsg.NewMetadataResponseTopic()
		topic.Topic = new("t")
		for i := range int32(3) {
			p := kmsg.NewMetadataResponseTopicPartition()
			p.Partition, p.Leader, p.Replicas, p.ISR = i, i, []int32{0, 1, 2}, []int32{0, 1}
			if i == 2 {
				p.Leader, p.ErrorCode = -1, kerr.LeaderNotAvailable.Code
			}
			topic.Partitions = append(topic.Partitions, p)
		}
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	w := &world{dir: t.TempDir(), env: map[string]string{"MILLRACE_BROKERS": fake.ListenAddrs()[0], "MILLRACE_REGISTRY": newRegistry(t)}}
	began := time.Now()
	r := w.want(t, codeFailed, "doctor")
	if took := time.Since(began); took > 11*time.Second {
		t.Errorf("took %s", took)
	}
	has(t, "stdout", r.out, "bad   broker        broker 2 is not reached at the address that the cluster gives for it: 127.0.0.1:1: nothing listens", "advertised.listeners",
		"bad   partitions    1 partition without a leader, neither read nor written: t/2", "warn  partitions    2 partitions with a replica that is not in sync: t/0, t/1")
}

func portOf(t *testing.T, text string) int32 {
	t.Helper()
	n, err := net.LookupPort("tcp", text)
	if err != nil {
		t.Fatal(err)
	}
	return int32(n)
}

// A login without rights sees little, is told so, and is not kept waiting.
func TestDoctorWithoutRights(t *testing.T) {
	t.Parallel()
	fake, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.EnableACLs(), kfake.SeedTopics(1, "t"),
		kfake.Superuser("SCRAM-SHA-512", "admin", "secret"), kfake.User("SCRAM-SHA-512", "nobody", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	w := &world{dir: t.TempDir(), env: map[string]string{
		"MILLRACE_BROKERS": fake.ListenAddrs()[0], "MILLRACE_SASL_USER": "nobody", "MILLRACE_SASL_PASSWORD": "secret",
		"MILLRACE_REGISTRY": newRegistry(t),
	}}
	r := w.want(t, codeDone, "doctor")
	has(t, "stdout", r.out, "ok    broker", "warn  permissions   SCRAM-SHA-512 as nobody: the login sees no topic", "ask who runs the cluster")
	w.env["MILLRACE_SASL_PASSWORD"] = "guess"
	r = w.want(t, codeFailed, "doctor")
	has(t, "stdout", r.out, "bad   broker", "refuse", "login", "millrace help connecting")
}

// The doctor writes nothing, on whatever cluster.
func TestDoctorOnlyReads(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	w.records(t, "shop.orders", "one")
	written := w.writes()
	w.want(t, codeDone, "doctor")
	if seen := written(); len(seen) > 0 {
		t.Errorf("sent %v", seen)
	}
}

func TestDoctorSeesClocksAndWhatIsNoRegistry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.shop(t)
	late := time.Now().Add(time.Hour)
	if err := w.client.ProduceSync(t.Context(), &kgo.Record{Topic: "shop.orders", Value: []byte("x"), Timestamp: late}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	r := w.want(t, codeFailed, "doctor")
	has(t, "stdout", r.out, "bad   clocks        records are stamped later than now", "shop.orders (5")
	for status, says := range map[int]string{http.StatusOK: "not like a schema registry", http.StatusUnauthorized: "it answers 401 Unauthorized"} {
		server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
				t.Errorf("logs in as %q with %q", user, password)
			}
			rw.WriteHeader(status)
			_, _ = rw.Write([]byte("<html>"))
		}))
		w.env["MILLRACE_REGISTRY"], w.env["MILLRACE_REGISTRY_USER"], w.env["MILLRACE_REGISTRY_PASSWORD"] = server.URL, "me", "secret"
		r := w.want(t, codeFailed, "doctor")
		has(t, "stdout", r.out, "bad   registry      "+server.URL+" does not answer: ", says)
		server.Close()
	}
}

func TestWrapCommand(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text  string
		width int
		want  string
	}{
		{"if so:  kafka-acls.sh --add --topic a", 0, "if so:  kafka-acls.sh --add --topic a"},
		{"if so:  kafka-acls.sh", 60, "if so: kafka-acls.sh"},
		{"if so:  kafka-acls.sh --add --topic a", 30, "if so:\n    kafka-acls.sh --add --topic a"},
		{"a disk that is larger than this", 30, "a disk that is larger than\n    this"},
	} {
		if got := wrapCommand(tt.text, tt.width, 4); got != tt.want {
			t.Errorf("wrapCommand(%q, %d) is %q, want %q", tt.text, tt.width, got, tt.want)
		}
	}
}

func TestWrap(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text          string
		width, indent int
		want          string
	}{
		{"a b", 0, 0, "a b"},
		{"twelve words would not fit here", 24, 4, "twelve words would\n    not fit here"},
		{"→ " + strings.Repeat("x", 30), 24, 4, "→\n    " + strings.Repeat("x", 30)},
		{"narrow", 10, 4, "narrow"},
	} {
		if got := wrap(tt.text, tt.width, tt.indent); got != tt.want {
			t.Errorf("wrap(%q, %d) is %q, want %q", tt.text, tt.width, got, tt.want)
		}
	}
}
