package devbroker_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/millrace/millrace/internal/devbroker"
)

const (
	withTxn = 0x10
	control = 0x20
)

var (
	testTime = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	now      = time.Now().UnixMilli() // older records than a week would be removed
)

// encode makes a record batch as a producer sends it, or as it is in a segment.
func encode(offset, pid int64, epoch int16, seq int32, attributes int16, key, value string) []byte {
	rec := kmsg.Record{Key: []byte(key), Value: []byte(value)}
	rec.Length = int32(len(rec.AppendTo(nil)) - 1)
	b := kmsg.RecordBatch{
		FirstOffset: offset, Magic: 2, Attributes: attributes, FirstTimestamp: now, MaxTimestamp: now,
		ProducerID: pid, ProducerEpoch: epoch, FirstSequence: seq, NumRecords: 1, Records: rec.AppendTo(nil),
	}
	out := b.AppendTo(nil)
	binary.BigEndian.PutUint32(out[8:], uint32(len(out)-12))
	binary.BigEndian.PutUint32(out[17:], crc32.Checksum(out[21:], crc32.MakeTable(crc32.Castagnoli)))
	return out
}

// end makes the end of a transaction of producer 7.
func end(offset int64, epoch int16, commit bool) []byte {
	key := "\x00\x00\x00\x00"
	if commit {
		key = "\x00\x00\x00\x01"
	}
	return encode(offset, 7, epoch, -1, withTxn|control, key, "\x00\x00\x00\x00\x00\x00")
}

func logEntry(text string) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(2+len(text)))
	body := append([]byte{1, 0}, text...)
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	return append(b, body...)
}

// planted is a data directory as a kill leaves it: the topic t with partitions of these segments.
type planted struct {
	parts []map[string][]byte // file to content
	pids  []string
	extra map[string]string
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// scratch is a directory in memory where there is one: a pass waits for the disk at each step.
func scratch(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "devbroker-") //nolint:usetesting // a directory in memory
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (p planted) write(tb testing.TB) string {
	tb.Helper()
	dir := scratch(tb)
	data := filepath.Join(dir, "data")
	put := func(name string, b []byte) {
		path := filepath.Join(data, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	put("meta.json", []byte(`{"version":1,"cluster_id":"x"}`))
	put("topics.json", []byte(`{"version":1,"topics":[{"name":"t","id":"AAAAAAAAAAAAAAAAAAAAAQ==","partitions":`+strconv.Itoa(len(p.parts))+`,"replicas":1}]}`))
	var pids []byte
	for _, e := range p.pids {
		pids = append(pids, logEntry(e)...)
	}
	put("pids.log", pids)
	for i, files := range p.parts {
		for name, b := range files {
			put(filepath.Join("partitions", "t-"+strconv.Itoa(i), name), b)
		}
	}
	for name, text := range p.extra {
		put(name, []byte(text))
	}
	return dir
}

// tree is every file below dir with its content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files[strings.TrimPrefix(path, dir)] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func recovered(t *testing.T, dir string, clean bool) devbroker.Recovered {
	t.Helper()
	found, err := devbroker.Recover(filepath.Join(dir, "data"), filepath.Join(dir, "damaged"), clean)
	if err != nil {
		t.Fatal(err)
	}
	once := tree(t, dir)
	if _, err := devbroker.Recover(filepath.Join(dir, "data"), filepath.Join(dir, "damaged"), clean); err != nil {
		t.Fatalf("a second pass: %v", err)
	}
	for name, b := range tree(t, dir) {
		if once[name] != b {
			t.Errorf("a second pass changed %s", name)
		}
	}
	return found
}

// committedIn reads all that a reader of committed records sees, sorted.
func committedIn(ctx context.Context, t *testing.T, addr string) []string {
	t.Helper()
	mark := strconv.FormatInt(time.Now().UnixNano(), 10)
	ends, err := kadm.NewClient(client(t, addr)).ListCommittedOffsets(ctx, "t")
	if err != nil {
		t.Fatal(err)
	}
	// Their end is read once this record is, which each partition gets behind it.
	p := client(t, addr, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	left := 0
	ends.Each(func(o kadm.ListedOffset) {
		left++
		r := &kgo.Record{Topic: "t", Partition: o.Partition, Value: []byte(mark)}
		if err := p.ProduceSync(ctx, r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	})
	c := client(t, addr, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(50*time.Millisecond))
	var got []string
	for left > 0 {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			switch v := string(r.Value); {
			case v == mark:
				left--
			case len(v) == 1: // and no mark of an earlier look
				got = append(got, v)
			}
		})
	}
	slices.Sort(got)
	return got
}

const producer = `{"type":"init","pid":7,"epoch":3,"txid":"x","timeout":60000}`

// endTxn asks for the end of the transaction of producer 7.
func endTxn(ctx context.Context, t *testing.T, addr string, epoch int16, commit bool) error {
	t.Helper()
	req := kmsg.NewPtrEndTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = "x", 7, epoch, commit
	resp, err := req.RequestWith(ctx, client(t, addr))
	if err != nil {
		t.Fatal(err)
	}
	return kerr.ErrorForCode(resp.ErrorCode)
}

// What a kill leaves open is decided once, for all partitions, and a producer that asks again hears the truth.
func TestOpenTransactions(t *testing.T) {
	t.Parallel()
	data := func(offset int64, epoch int16, seq int32, value string) []byte {
		return encode(offset, 7, epoch, seq, withTxn, "", value)
	}
	tests := []struct {
		name    string
		planted planted
		want    string // what is committed
		again   error  // when the client asks for the commit of epoch 3 again
	}{
		{"open, its end not begun", planted{
			parts: []map[string][]byte{{"0.dat": data(0, 3, 0, "a")}, {"0.dat": data(0, 3, 0, "b")}}, pids: []string{producer},
		}, "", kerr.InvalidTxnState},
		{"the commit has reached one partition", planted{
			parts: []map[string][]byte{{"0.dat": join(data(0, 3, 0, "a"), end(1, 3, true))}, {"0.dat": data(0, 3, 0, "b")}}, pids: []string{producer},
		}, "a b", nil},
		{"the abort has reached one partition", planted{
			parts: []map[string][]byte{{"0.dat": join(data(0, 3, 0, "a"), end(1, 3, false))}, {"0.dat": data(0, 3, 0, "b")}}, pids: []string{producer},
		}, "", kerr.InvalidTxnState},
		{"committed everywhere, the producer's state not written", planted{
			parts: []map[string][]byte{{"0.dat": join(data(0, 3, 0, "a"), end(1, 3, true))}}, pids: []string{producer},
		}, "a", nil},
		{"committed everywhere, its next epoch not written", planted{
			parts: []map[string][]byte{{"0.dat": join(data(0, 3, 0, "a"), end(1, 3, true))}},
			pids:  []string{producer, `{"type":"endtx","pid":7,"epoch":3,"commit":true}`},
		}, "a", nil},
		{"committed before, then another one opened", planted{
			parts: []map[string][]byte{{"0.dat": join(data(0, 2, 0, "a"), end(1, 2, true), data(2, 3, 0, "b"))}},
			pids:  []string{`{"type":"init","pid":7,"epoch":2,"txid":"x","timeout":60000}`, `{"type":"endtx","pid":7,"epoch":2,"commit":true}`, producer},
		}, "a", kerr.InvalidTxnState},
		{"the books say committed, and a marker found no room on the disk", planted{
			parts: []map[string][]byte{{"0.dat": data(0, 3, 0, "a")}},
			pids:  []string{producer, `{"type":"endtx","pid":7,"epoch":3,"commit":true}`, `{"type":"init","pid":7,"epoch":4,"txid":"x","timeout":60000}`},
		}, "a", kerr.InvalidTxnState},
		{"a pass was killed after its first write", planted{
			parts: []map[string][]byte{{"0.dat": join(data(0, 3, 0, "a"), end(1, 3, true))}, {"0.dat": data(0, 3, 0, "b")}},
			pids:  []string{producer, `{"type":"endtx","pid":7,"epoch":4,"commit":true}`},
		}, "a b", nil},
		{"after a decided commit the next one is its own", planted{
			parts: []map[string][]byte{{"0.dat": join(data(0, 3, 0, "a"), end(1, 3, true), data(2, 4, 0, "b"))}},
			pids:  []string{producer, `{"type":"endtx","pid":7,"epoch":4,"commit":true}`},
		}, "a", kerr.ProducerFenced},
		{"timed out, the abort has reached one partition", planted{
			parts: []map[string][]byte{{"0.dat": join(data(0, 3, 0, "a"), end(1, 4, false))}, {"0.dat": data(0, 3, 0, "b")}}, pids: []string{producer},
		}, "", kerr.ProducerFenced},
		{"members and transactions of an earlier stop are out of date", planted{
			parts: []map[string][]byte{{"0.dat": data(0, 3, 0, "a")}}, pids: []string{producer},
			extra: map[string]string{"session_state.json": `{"shutdownAt":"2026-01-02T03:04:05Z","inProgressTxns":[{"pid":7,"txStart":"2096-01-02T03:04:05Z","txPartFirstOffsets":{"t":{"0":0}}}]}`},
		}, "", kerr.InvalidTxnState},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ctx, dir := testContext(t), tt.planted.write(t)
			recovered(t, dir, false)
			running := copyOf(t, dir)
			addr, _ := serve(t, devbroker.Config{Dir: running, Addr: "127.0.0.1:0"})
			if err := endTxn(ctx, t, addr, 3, true); !errors.Is(err, tt.again) {
				t.Errorf("asked again: got %v, want %v", err, tt.again)
			}
			if got := committedIn(ctx, t, addr); strings.Join(got, " ") != tt.want {
				t.Errorf("committed: got %v, want %s", got, tt.want)
			}
			// After another kill nothing comes back, not even with the next commit.
			again, _ := serve(t, devbroker.Config{Dir: copyOf(t, running), Addr: "127.0.0.1:0"})
			next := client(t, again, kgo.TransactionalID("x"))
			if err := next.BeginTransaction(); err != nil {
				t.Fatal(err)
			}
			if err := next.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("z")}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if err := next.EndTransaction(ctx, kgo.TryCommit); err != nil {
				t.Fatal(err)
			}
			if got := committedIn(ctx, t, again); strings.Join(got, " ") != strings.TrimSpace(tt.want+" z") {
				t.Errorf("committed after another kill: got %v, want %s z", got, tt.want)
			}
		})
	}
}

// copyOf is the directory as a kill at this moment leaves it.
func copyOf(t *testing.T, dir string) string {
	t.Helper()
	to := scratch(t)
	if err := os.CopyFS(filepath.Join(to, "data"), os.DirFS(filepath.Join(dir, "data"))); err != nil {
		t.Fatal(err)
	}
	return to
}

// A batch that is sent again after a kill is the one that is there; kfake alone appends it twice.
func TestBatchSentAgain(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	var log []byte
	for seq := range int32(7) {
		log = append(log, encode(int64(seq), 9, 0, seq, 0, "", "v"+strconv.Itoa(int(seq)))...)
	}
	dir := planted{parts: []map[string][]byte{{"0.dat": log}}, pids: []string{`{"type":"init","pid":9,"epoch":0}`}}.write(t)
	send := func(addr string, seq int32) int64 {
		req := kmsg.NewPtrProduceRequest()
		req.Acks, req.TimeoutMillis = -1, 1000
		part := kmsg.NewProduceRequestTopicPartition()
		part.Records = encode(0, 9, 0, seq, 0, "", "v"+strconv.Itoa(int(seq)))
		topic := kmsg.NewProduceRequestTopic()
		topic.Topic, topic.TopicID[15] = "t", 1
		topic.Partitions = append(topic.Partitions, part)
		req.Topics = append(req.Topics, topic)
		resp, err := req.RequestWith(ctx, client(t, addr))
		if err != nil {
			t.Fatal(err)
		}
		got := resp.Topics[0].Partitions[0]
		if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
			t.Errorf("sequence %d: %v", seq, err)
		}
		return got.BaseOffset
	}

	bare, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(filepath.Join(copyOf(t, dir), "data")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bare.Close)
	if got := send(bare.ListenAddrs()[0], 6); got != 7 {
		t.Errorf("kfake alone appends again: got offset %d, want 7; if it has learned better, so much the better", got)
	}

	addr, _ := serve(t, devbroker.Config{Dir: dir, Addr: "127.0.0.1:0"})
	for _, seq := range []int32{6, 2} { // the last one, and the oldest that a client may send again
		if got := send(addr, seq); got != int64(seq) {
			t.Errorf("sequence %d sent again: got offset %d, want %d", seq, got, seq)
		}
	}
	if got := send(addr, 7); got != 7 {
		t.Errorf("the next one: got offset %d, want 7", got)
	}
}

// A producer whose entry is not in pids.log is known by its batches.
func TestProducerWithoutAnEntry(t *testing.T) {
	t.Parallel()
	dir := planted{parts: []map[string][]byte{{"0.dat": encode(0, 9, 2, 0, 0, "", "v")}}}.write(t)
	if found := recovered(t, dir, false); found.Producers != 1 {
		t.Errorf("got %+v, want one producer", found)
	}
	pids := tree(t, dir)["/data/pids.log"]
	if !strings.Contains(pids, `{"type":"init","pid":9,"epoch":2}`) {
		t.Errorf("got %q, want an entry for producer 9", pids)
	}
}

// The log and its index are cut at every byte of their last batches, as a kill between and within their writes does.
func TestCutAnywhere(t *testing.T) {
	t.Parallel()
	whole := [][]byte{
		encode(0, 9, 0, 0, 0, "", "a"), encode(1, 7, 3, 0, withTxn, "", "b"), end(2, 3, false),
		encode(3, 9, 0, 1, 0, "", "c"), encode(4, 7, 4, 0, withTxn, "", "d"),
	}
	log := join(whole...)
	dir := planted{parts: []map[string][]byte{{"0.dat": log}}, pids: []string{producer}}.write(t)
	recovered(t, dir, true)
	index := tree(t, dir)["/data/partitions/t-0/0.idx"]
	if len(index) != 15*len(whole) {
		t.Fatalf("the index has %d bytes, want %d", len(index), 15*len(whole))
	}
	check := func(cut, idx, batches, size int) {
		dir := planted{parts: []map[string][]byte{{"0.dat": log[:cut], "0.idx": []byte(index[:max(0, idx)])}}, pids: []string{producer}}.write(t)
		found := recovered(t, dir, false)
		if torn := map[bool]int{true: 1}[cut > size]; found.Torn != torn {
			t.Errorf("cut at %d: %d torn, want %d", cut, found.Torn, torn)
		}
		files := tree(t, dir)
		got, gotIndex := files["/data/partitions/t-0/0.dat"], files["/data/partitions/t-0/0.idx"]
		if !strings.HasPrefix(got, string(log[:size])) || !strings.HasPrefix(gotIndex, index[:15*batches]) {
			t.Errorf("cut at %d, index at %d: whole batches are gone, or flags are another's", cut, idx)
		}
		if open := batches == 2 || batches == 5; open != (len(gotIndex) == 15*(batches+1)) || open != (len(got) > size) {
			t.Errorf("cut at %d, index at %d: got %d bytes and %d of index after %d batches", cut, idx, len(got), len(gotIndex), batches)
		}
	}
	var wg sync.WaitGroup
	limit := make(chan struct{}, 32) // each waits for the disk most of the time
	for cut := range len(log) + 1 {
		batches, size := 0, 0
		for batches < len(whole) && size+len(whole[batches]) <= cut {
			size += len(whole[batches])
			batches++
		}
		states := []int{len(index)}
		if cut == size { // between the two writes, and what other kills have left
			states = []int{15 * batches, 15*batches - 15, 15*batches - 7, len(index), 0}
		}
		for _, idx := range states {
			limit <- struct{}{}
			wg.Go(func() {
				defer func() { <-limit }()
				check(cut, idx, batches, size)
			})
		}
	}
	wg.Wait()
}

func TestStateLogsCutAnywhere(t *testing.T) {
	t.Parallel()
	whole := logEntry(producer)
	for cut := range len(whole) {
		dir := planted{parts: []map[string][]byte{{"0.dat": encode(0, 9, 0, 0, 0, "", "a")}}}.write(t)
		for _, name := range []string{"pids.log", "groups.log"} {
			if err := os.WriteFile(filepath.Join(dir, "data", name), join(whole, whole[:cut]), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		recovered(t, dir, true)
		files := tree(t, dir)
		if files["/data/pids.log"] != string(whole) || files["/data/groups.log"] != string(whole) {
			t.Fatalf("cut at %d: the torn entry is still there", cut)
		}
	}
}

// What a kill does not do is damage: it is copied and refused, and nothing is cut off.
func TestDamageIsRefused(t *testing.T) {
	t.Parallel()
	a, b, c := encode(0, 9, 0, 0, 0, "", "a"), encode(1, 9, 0, 1, 0, "", "b"), encode(2, 9, 0, 2, 0, "", "c")
	flip := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 0x40
		return b
	}
	tests := []struct {
		name  string
		files map[string][]byte
		pids  string
		want  string
	}{
		{"a bit of the payload", map[string][]byte{"0.dat": join(a, flip(b, 65), c)}, "", "checksum"},
		{"a bit of the last batch", map[string][]byte{"0.dat": join(a, b, flip(c, 65))}, "", "checksum"},
		{"a length that runs past the end", map[string][]byte{"0.dat": join(a, flip(b, 10), c)}, "", "wrong length"},
		{"an impossible length", map[string][]byte{"0.dat": join(a, flip(b, 8), c)}, "", "impossible length"},
		{"an offset", map[string][]byte{"0.dat": join(a, flip(b, 5), c)}, "", "is next"},
		{"another format", map[string][]byte{"0.dat": join(a, flip(b, 16), c)}, "", "format"},
		{"a torn segment that is not the last", map[string][]byte{"0.dat": join(a, b[:30]), "1.dat": join(b, c)}, "", "later ones"},
		{"segments over each other", map[string][]byte{"0.dat": join(a, b), "1.dat": b}, "", "before the end"},
		{"the producers' log", map[string][]byte{"0.dat": a}, "x", "checksum"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, clean := range []bool{true, false} {
				dir := planted{parts: []map[string][]byte{tt.files}}.write(t)
				if tt.pids != "" {
					if err := os.WriteFile(filepath.Join(dir, "data", "pids.log"), join(flip(logEntry(producer), 20), logEntry(producer)), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				before := tree(t, dir)
				err := devbroker.Serve(testContext(t), devbroker.Config{Dir: dir, Addr: "127.0.0.1:0"})
				if !errors.Is(err, devbroker.ErrUnreadable) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("clean %v: got %v, want a refusal with %q", clean, err, tt.want)
				}
				after, copies := tree(t, dir), 0
				for name, b := range before {
					if filepath.Ext(name) != ".idx" && after[name] != b {
						t.Errorf("%s was changed", name)
					}
				}
				for name := range after {
					if strings.HasPrefix(name, "/damaged/") {
						copies++
					}
				}
				if copies != 1 {
					t.Errorf("got %d copies, want 1", copies)
				}
			}
		})
	}
}

// A partition goes on where it was, also when retention has removed all of it, or the first batch was torn.
func TestOffsetsAreNotUsedAgain(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		files map[string][]byte
		want  int64
	}{
		{"all removed, by the snapshot", map[string][]byte{"snapshot.json": []byte(`{"version":1,"high_watermark":500}`)}, 500},
		{"all removed, by a group", map[string][]byte{"12.idx": make([]byte, 15)}, 90},
		{"the first batch after it torn", map[string][]byte{"100.dat": encode(100, 9, 0, 0, 0, "", "a")[:40]}, 100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := planted{parts: []map[string][]byte{tt.files}, extra: map[string]string{
				"groups.log": string(logEntry(`{"type":"commit","g":"g","t":"t","o":90}`)),
			}}.write(t)
			recovered(t, dir, true)
			addr, _ := serve(t, devbroker.Config{Dir: dir, Addr: "127.0.0.1:0"})
			r := kgo.Record{Topic: "t", Value: []byte("next")}
			if err := client(t, addr).ProduceSync(testContext(t), &r).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if r.Offset != tt.want {
				t.Errorf("got offset %d, want %d", r.Offset, tt.want)
			}
		})
	}
}

// An end of a transaction in a version that uses an epoch again is answered with what is wrong.
func TestOldTransactionsAreRefused(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	addr, _ := serve(t, devbroker.Config{Dir: t.TempDir(), Addr: "127.0.0.1:0"})
	old := client(t, addr, kgo.TransactionalID("x"), kgo.MaxVersions(oldVersions()))
	adm := kadm.NewClient(client(t, addr))
	if _, err := adm.CreateTopic(ctx, 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	if err := old.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := old.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("v")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := old.EndTransaction(ctx, kgo.TryCommit); !errors.Is(err, kerr.UnsupportedVersion) {
		t.Errorf("got %v, want UNSUPPORTED_VERSION", err)
	}
}

// oldVersions are those of Kafka 3.9 for transactions.
func oldVersions() *kversion.Versions {
	v := kversion.Stable()
	v.SetMaxKeyVersion(int16(kmsg.EndTxn), 4)
	return v
}

func TestSizeIsHeldWhileItRuns(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	full := make(chan bool, 8)
	dir := t.TempDir()
	cfg := devbroker.Config{Dir: dir, Addr: "127.0.0.1:0", MaxSize: 64 << 10, Full: func(f bool) { full <- f }}
	addr, stop := serve(t, cfg)
	adm := kadm.NewClient(client(t, addr))
	keep := "-1"
	if _, err := adm.CreateTopic(ctx, 1, 1, map[string]*string{"retention.bytes": &keep}, "t"); err != nil {
		t.Fatal(err)
	}
	c := client(t, addr, kgo.DefaultProduceTopic("t"), kgo.ProducerBatchCompression(kgo.NoCompression()))
	value := bytes.Repeat([]byte("v"), 80<<10)
	if err := c.ProduceSync(ctx, &kgo.Record{Value: value}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if !<-full {
		t.Fatal("got that there is room, want that there is none")
	}
	if err := c.ProduceSync(ctx, &kgo.Record{Value: []byte("v")}).FirstErr(); !errors.Is(err, kerr.PolicyViolation) {
		t.Errorf("above the largest size: got %v, want POLICY_VIOLATION", err)
	}
	var all kadm.Offsets
	all.Add(kadm.Offset{Topic: "t", At: 1, LeaderEpoch: -1})
	if _, err := adm.DeleteRecords(ctx, all); err != nil {
		t.Fatal(err)
	}
	if <-full {
		t.Fatal("got that there is no room, want that there is")
	}
	if err := c.ProduceSync(ctx, &kgo.Record{Value: []byte("v")}).FirstErr(); err != nil {
		t.Errorf("below it again: %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "clean")); err != nil {
		t.Errorf("the mark of a clean end: %v", err)
	}
}

func TestSetAside(t *testing.T) {
	t.Parallel()
	dir := planted{parts: []map[string][]byte{{"0.dat": []byte("no batch at all, and not short either: it is longer than a header is")}}}.write(t)
	if err := devbroker.Serve(testContext(t), devbroker.Config{Dir: dir, Addr: "127.0.0.1:0"}); !errors.Is(err, devbroker.ErrUnreadable) {
		t.Fatalf("got %v, want a refusal", err)
	}
	kept, err := devbroker.SetAside(testContext(t), dir, testTime)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(kept, "partitions", "t-0", "0.dat")); err != nil {
		t.Errorf("what was set aside: %v", err)
	}
	serve(t, devbroker.Config{Dir: dir, Addr: "127.0.0.1:0"})
	if kept, err := devbroker.SetAside(testContext(t), t.TempDir(), testTime); err != nil || kept != "" {
		t.Errorf("nothing to set aside: got %q, %v", kept, err)
	}
}

// The windows are those that kfake itself writes at a clean end.
func TestWindowsAreKfakesOwn(t *testing.T) {
	t.Parallel()
	ctx, dir := testContext(t), t.TempDir()
	addr, stop := serve(t, devbroker.Config{Dir: dir, Addr: "127.0.0.1:0"})
	if _, err := kadm.NewClient(client(t, addr)).CreateTopic(ctx, 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	publish(ctx, t, addr, "t", "a", "b", "c", "d", "e", "f", "g")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	type windows struct {
		Windows []struct {
			PID     int64 `json:"pid"`
			Entries [5]struct {
				FirstSeq int32 `json:"first_seq"`
				NextSeq  int32 `json:"next_seq"`
				Offset   int64 `json:"offset"`
			} `json:"entries"`
			Count   int   `json:"count"`
			At      int   `json:"at"`
			Epoch   int16 `json:"epoch"`
			Seen    bool  `json:"seen"`
			NextSeq int32 `json:"next_seq"`
		} `json:"windows"`
	}
	read := func() (w windows) {
		if err := json.Unmarshal([]byte(tree(t, dir)["/data/seq_windows.json"]), &w); err != nil {
			t.Fatal(err)
		}
		return w
	}
	want := read()
	recovered(t, dir, false)
	if got := read(); len(got.Windows) != 1 || len(want.Windows) != 1 || got.Windows[0] != want.Windows[0] {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
