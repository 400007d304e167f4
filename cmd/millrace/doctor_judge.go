package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/groups"
)

// The limits of what is well.
const (
	slowAnswer = time.Second     // a broker that takes longer to answer
	skewWarn   = 5 * time.Second // two clocks
	skewBad    = time.Minute     // of clocks: lag in seconds and reading by time are wrong
	diskWarn   = 0.80            // used
	diskBad    = 0.95            // used: Kafka stops when a disk is full
	retainWarn = 0.5             // of the retention, as the age of what a group reads next
	fewFiles   = 1024            // connections and files; a client has one a broker, a registry and a console many
	wellCopied = 3               // replicas
	txnLevel   = 2               // of transaction.version: KIP-890, no zombie can commit
)

// judge turns what was seen into lines, in a fixed order.
func (k *checkup) judge() []finding {
	all := k.judgeBrokers()
	if len(k.cluster.Seeds) > 0 {
		if k.metaErr != nil {
			all = append(all, bad("cluster", "", "the cluster answers and does not describe itself: %v", k.metaErr))
		} else {
			for _, judge := range []func() []finding{
				k.judgeCluster, k.judgeVersions, k.judgePartitions, k.judgeTopics, k.judgeBrokerConfigs, k.judgeGroups, k.judgeRights, k.judgeDisks,
			} {
				all = append(all, judge()...)
			}
		}
	}
	all = append(all, k.judgeRegistries()...)
	all = append(all, k.judgeClocks()...)
	return append(all, k.judgeMachine()...)
}

func (k *checkup) judgeBrokers() []finding {
	var out []finding
	failed := map[string]error{}
	for _, r := range k.seeds {
		if r.err != nil {
			failed[r.addr] = r.err
			do := "check TLS and login:  millrace help connecting"
			if _, dial := errors.AsType[*net.OpError](r.err); dial || k.cluster.TLS == nil && k.cluster.Auth.IsZero() {
				do = "start it, or take it out of --brokers, MILLRACE_BROKERS or the context"
			}
			out = append(out, bad("broker", do, "%s", unreached(r)))
		}
	}
	var slow []string
	var answering int
	for _, r := range k.brokers {
		switch {
		case failed[r.addr] != nil: // said above
		case r.err != nil:
			out = append(out, bad("broker", fmt.Sprintf("start broker %d, or make its advertised.listeners an address that is reached from here", r.id),
				"broker %d is not reached at the address that the cluster gives for it: %s", r.id, unreached(r)))
		default:
			answering++
			if r.took > slowAnswer {
				slow = append(slow, fmt.Sprintf("%s (%.1fs)", r.addr, r.took.Seconds()))
			}
		}
	}
	if len(slow) > 0 {
		out = append(out, warn("broker", "look at its load and at the network in between", "slow to answer: %s", some(slow)))
	}
	if len(k.brokers) > 0 && answering == len(k.brokers) {
		addrs := make([]string, len(k.brokers))
		for i, r := range k.brokers {
			addrs[i] = r.addr
		}
		word := "the broker answers"
		if answering > 1 {
			word = fmt.Sprintf("all %d brokers answer, each at its address", answering)
		}
		out = append([]finding{fine("broker", "%s: %s", word, some(addrs))}, out...)
	}
	return out
}

// unreached is why an address does not answer, without what every such error begins with.
func unreached(r reached) string {
	return strings.TrimPrefix(r.err.Error(), "reach Kafka at ")
}

// some is a list for a line: the first few, and how many more.
func some(words []string) string {
	const most = 4
	if len(words) <= most {
		return strings.Join(words, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(words[:most-1], ", "), len(words)-most+1)
}

func (k *checkup) judgeCluster() []finding {
	id := cmp.Or(k.meta.Cluster, "unknown")
	if k.wantID != "" && k.wantID != k.meta.Cluster {
		return []finding{bad("cluster", "check the addresses:  millrace context show", "its id is %s, and the context says %s: this is another cluster", id, k.wantID)}
	}
	if k.meta.Controller < 0 {
		return []finding{bad("cluster", "look into the logs of the controllers: is there a majority of them?", "id %s, and no controller: topics cannot be made, and no partition gets a new leader", id)}
	}
	return []finding{fine("cluster", "id %s, controller %d, %s, %s", id, k.meta.Controller, plural(int64(len(k.meta.Brokers)), "broker"), plural(int64(len(k.own())), "topic"))}
}

func (k *checkup) judgeVersions() []finding {
	if k.verErr != nil {
		return []finding{warn("versions", "", "not known: %v", k.verErr)}
	}
	releases := map[string][]string{}
	transaction, heartbeats := int16(99), true
	for id, v := range k.versions {
		if v.err != nil {
			continue // the broker does not answer, which is a line of its own
		}
		releases[v.release] = append(releases[v.release], strconv.Itoa(int(id)))
		transaction, heartbeats = min(transaction, v.transaction), heartbeats && v.heartbeats
	}
	if len(releases) == 0 {
		return []finding{warn("versions", "", "no broker says what it can do")}
	}
	var out []finding
	if len(releases) > 1 {
		var each []string
		for _, r := range slices.Sorted(maps.Keys(releases)) {
			slices.Sort(releases[r])
			each = append(each, fmt.Sprintf("Kafka %s on %s", r, some(releases[r])))
		}
		out = append(out, warn("versions", "finish the upgrade", "brokers of different versions: %s", strings.Join(each, "; ")))
	} else {
		for r := range releases {
			says := "Kafka " + r + ", by what it can do"
			if !strings.HasPrefix(r, "v") {
				says = "no release of Apache Kafka, by what it can do" // "between v1.0 and v1.1": some requests are missing
			}
			if k.embedded {
				says = "the embedded broker of millrace dev, which is for development only"
			}
			out = append(out, fine("versions", "%s", says))
		}
	}
	if transaction < txnLevel {
		level := "is not set"
		if transaction >= 0 {
			level = fmt.Sprintf("is %d", transaction)
		}
		out = append(out, warn("versions", "kafka-features.sh upgrade --feature transaction.version=2  (Kafka 4.0 and later)",
			"transaction.version %s: after a fault, a transaction can be left open or take in a record of the one before (KIP-890)", level))
	}
	if !heartbeats {
		out = append(out, warn("versions", "upgrade to Kafka 4.0 or later", "no consumer protocol of KIP-848: each change of a group's members stops all of them for a moment"))
	}
	return out
}

func (k *checkup) judgePartitions() []finding {
	var offline, behind, unwritable []string
	total := 0
	for _, t := range k.meta.Topics.Sorted() {
		for _, p := range t.Partitions.Sorted() {
			total++
			name := fmt.Sprintf("%s/%d", p.Topic, p.Partition)
			least, _ := strconv.Atoi(k.topicConfigs[p.Topic]["min.insync.replicas"])
			switch {
			case p.Leader < 0:
				offline = append(offline, name)
			case len(p.ISR) < least && len(p.Replicas) >= least:
				unwritable = append(unwritable, name)
			case len(p.ISR) < len(p.Replicas):
				behind = append(behind, name)
			}
		}
	}
	var out []finding
	if n := len(offline); n > 0 {
		out = append(out, bad("partitions", "start the brokers that hold them", "%s without a leader, neither read nor written: %s", plural(int64(n), "partition"), some(offline)))
	}
	if n := len(unwritable); n > 0 {
		out = append(out, bad("partitions", "start the brokers that hold the other replicas", "%s with fewer replicas in sync than min.insync.replicas, so that writes fail: %s", plural(int64(n), "partition"), some(unwritable)))
	}
	if n := len(behind); n > 0 {
		out = append(out, warn("partitions", "is a broker down, or a disk or network too slow?", "%s with a replica that is not in sync: %s", plural(int64(n), "partition"), some(behind)))
	}
	if len(out) == 0 && total > 0 {
		out = append(out, fine("partitions", "%s, each with a leader and all replicas in sync", plural(int64(total), "partition")))
	}
	return out
}

// judgeTopics looks for settings that lose events or stop writes on the day a broker goes.
func (k *checkup) judgeTopics() []finding {
	var out []finding
	few, blocking, single, unclean := []string{}, []string{}, []string{}, []string{}
	for _, name := range k.own() {
		replicas := k.meta.Topics[name].Partitions.NumReplicas()
		if replicas < wellCopied {
			few = append(few, name)
		}
		config := k.topicConfigs[name]
		if config == nil {
			continue
		}
		switch least, err := strconv.Atoi(config["min.insync.replicas"]); {
		case err != nil:
		case replicas > 1 && least >= replicas:
			blocking = append(blocking, name)
		case replicas >= wellCopied && least == 1:
			single = append(single, name)
		}
		if config["unclean.leader.election.enable"] == "true" {
			unclean = append(unclean, name)
		}
	}
	topicsOf := func(names []string) string { return plural(int64(len(names)), "topic") }
	switch {
	case len(few) > 0 && len(k.meta.Brokers) == 1:
		out = append(out, warn("topics", "for production: three brokers, and topics with replicas: 3", "the cluster is one broker: what its disk loses is lost"))
	case len(few) > 0:
		out = append(out, warn("topics", "move them to three replicas with kafka-reassign-partitions.sh, and write replicas: 3 in their files", "%s with fewer than %d replicas: %s", topicsOf(few), wellCopied, some(few)))
	}
	if len(blocking) > 0 {
		out = append(out, warn("topics", "set min.insync.replicas one lower than the replicas", "%s where min.insync.replicas is as many as there are replicas, so that one broker down stops all writes: %s", topicsOf(blocking), some(blocking)))
	}
	if len(single) > 0 {
		out = append(out, warn("topics", "config:  min.insync.replicas: 2  in their files, then  millrace topics apply", "%s with min.insync.replicas 1: an event that was acknowledged can be lost with one broker: %s", topicsOf(single), some(single)))
	}
	if len(unclean) > 0 {
		out = append(out, warn("topics", "set unclean.leader.election.enable to false", "%s may take a leader that lacks acknowledged events: %s", topicsOf(unclean), some(unclean)))
	}
	if k.topicErr != nil {
		out = append(out, warn("topics", "", "settings not seen: %v", k.topicErr))
	}
	if len(out) == 0 && len(k.own()) > 0 {
		out = append(out, fine("topics", "%s with three replicas or more, and settings that keep what was acknowledged", topicsOf(k.own())))
	}
	return out
}

func (k *checkup) judgeBrokerConfigs() []finding {
	switch {
	case k.brokerErr != nil:
		return []finding{warn("settings", "", "of the brokers not seen: %v", k.brokerErr)}
	case k.brokerConfigs["auto.create.topics.enable"] == "true":
		return []finding{warn("settings", "auto.create.topics.enable=false on the brokers; make topics with  millrace topics apply",
			"brokers make any topic that is asked for: a mistyped name becomes a topic")}
	case len(k.brokerConfigs) > 0:
		return []finding{fine("settings", "brokers make no topics by themselves")}
	}
	return nil
}

// judgeGroups sums up how consumers do, and looks for those that lose or will lose records they have not read.
func (k *checkup) judgeGroups() []finding {
	if k.groupsErr != nil {
		return []finding{warn("groups", "", "not seen: %v", k.groupsErr)}
	}
	var (
		lost, risky, left, damaged []string
		states                     = map[string]int{}
	)
	for _, g := range k.groups {
		states[strings.ToLower(cmp.Or(g.State, "unknown"))]++
		expired, broken, share := int64(0), false, 0.0
		for _, p := range g.Partitions {
			expired += p.Expired()
			broken = broken || p.Commit != nil && p.Commit.Damaged
			share = max(share, k.shareOfRetention(g.ID, p))
		}
		total := g.Total()
		switch {
		case expired > 0:
			lost = append(lost, fmt.Sprintf("%s (%s)", g.ID, number(expired)))
		case share > retainWarn:
			risky = append(risky, fmt.Sprintf("%s (%.0f%% of the retention)", g.ID, min(share, 1)*100))
		case len(g.Members) == 0 && total.Lag > 0:
			left = append(left, fmt.Sprintf("%s (%s)", g.ID, number(total.Lag)))
		}
		if broken {
			damaged = append(damaged, g.ID)
		}
	}
	var out []finding
	if len(lost) > 0 {
		out = append(out, bad("groups", "a longer retention, or faster consumers; which partitions, says  millrace groups describe "+strings.Fields(lost[0])[0], "records were deleted before a group read them: %s", some(lost)))
	}
	if len(risky) > 0 {
		out = append(out, warn("groups", "start or add consumers, or lengthen the retention", "far behind, and soon without the records they have not read: %s", some(risky)))
	}
	if len(left) > 0 {
		out = append(out, warn("groups", "start the service, or forget the group if it is gone for good", "nobody consumes, and records wait: %s", some(left)))
	}
	if len(damaged) > 0 {
		out = append(out, warn("groups", "millrace groups describe "+damaged[0], "commits whose notes on deferred records cannot be read: %s", some(damaged)))
	}
	if len(k.groups) > 0 {
		var words []string
		for _, s := range slices.Sorted(maps.Keys(states)) {
			words = append(words, fmt.Sprintf("%d %s", states[s], s))
		}
		out = append(out, fine("groups", "%s: %s", plural(int64(len(k.groups)), "group"), strings.Join(words, ", ")))
	}
	return out
}

// shareOfRetention is the age of the record that a group reads next as a part of how long its topic keeps records.
func (k *checkup) shareOfRetention(group string, p groups.Partition) float64 {
	at, known := k.ages[groups.Key{Group: group, Topic: p.Topic, Partition: p.Partition}]
	ms, err := strconv.ParseInt(k.topicConfigs[p.Topic]["retention.ms"], 10, 64)
	if !known || err != nil || ms <= 0 || !strings.Contains(k.topicConfigs[p.Topic]["cleanup.policy"], "delete") {
		return 0
	}
	return k.now.Sub(at).Seconds() * 1000 / float64(ms)
}

func (k *checkup) judgeDisks() []finding {
	var out []finding
	if k.dirsErr != nil {
		out = append(out, warn("disk", "", "not seen: %v", k.dirsErr))
	}
	var size int64
	fullest := 0.0
	for _, d := range k.dirs {
		size += d.Size()
		if d.TotalBytes <= 0 {
			continue
		}
		used := 1 - float64(d.UsableBytes)/float64(d.TotalBytes)
		fullest = max(fullest, used)
		if used >= diskWarn {
			f := warn("disk", "a larger disk, or a shorter retention of the largest topics", "%s on broker %d is %.0f%% full: %s of %s are free", d.Dir, d.Broker, used*100, bytesOf(d.UsableBytes), bytesOf(d.TotalBytes))
			if used >= diskBad {
				f.State = stateBad
			}
			out = append(out, f)
		}
	}
	if len(k.dirs) > 0 && len(out) == 0 {
		says := fmt.Sprintf("%s of events", bytesOf(size))
		if fullest > 0 {
			says += fmt.Sprintf(", the fullest disk at %.0f%%", fullest*100)
		}
		out = append(out, fine("disk", "%s", says))
	}
	return out
}

// bytesOf is a size for a person: 3.2 GiB.
func bytesOf(n int64) string {
	f, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, u
	}
	if unit == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

func (k *checkup) judgeRegistries() []finding {
	var out []finding
	for _, r := range k.registries {
		switch {
		case r.err != nil && k.registryAt == "":
			out = append(out, warn("registry", "name it, if there is one:  --registry URL  or MILLRACE_REGISTRY", "none is named, and none answers at %s: what is typed by a schema cannot be decoded", r.url))
		case r.err != nil:
			out = append(out, bad("registry", "is it running, and is the address right? It is said by "+k.registryAt, "%s does not answer: %v", r.url, r.err))
		case strings.HasPrefix(r.mode, "READONLY"):
			out = append(out, warn("registry", "if that is not on purpose: PUT /mode {\"mode\":\"READWRITE\"}", "%s takes no new schemas: its mode is %s", r.url, r.mode))
		case r.level == "NONE":
			out = append(out, warn("registry", "PUT /config {\"compatibility\":\"BACKWARD\"}", "%s checks no schema against the one before: any change is taken, and may stop every consumer", r.url))
		default:
			says := r.url + " answers"
			if r.level != "" {
				says += ", compatibility " + r.level
			}
			if r.mode != "" {
				says += ", mode " + r.mode
			}
			out = append(out, fine("registry", "%s", says))
		}
	}
	return out
}

// judgeClocks compares the clocks that can be seen with ours: that of the registry's machine by its answers, and those of
// brokers and producers where one of their records is stamped later than now.
func (k *checkup) judgeClocks() []finding {
	var out []finding
	compared := 0
	judge := func(ahead time.Duration, do, says string, args ...any) {
		if ahead < skewWarn {
			return
		}
		f := warn("clocks", do, says, args...)
		if ahead >= skewBad {
			f.State = stateBad
		}
		out = append(out, f)
	}
	for _, r := range k.registries {
		if r.err != nil {
			continue
		}
		compared++
		way := "ahead of"
		if r.ahead < 0 {
			way = "behind"
		}
		judge(r.ahead.Abs(), "synchronize both machines with NTP", "the clock of %s is %s %s ours", r.url, age(r.ahead.Abs()), way)
	}
	type future struct {
		topic string
		ahead time.Duration
	}
	var futures []future
	seen := map[string]time.Duration{}
	k.newest.Each(func(o kadm.ListedOffset) {
		if o.Err == nil && o.Timestamp > 0 {
			compared++
			seen[o.Topic] = max(seen[o.Topic], time.UnixMilli(o.Timestamp).Sub(k.now))
		}
	})
	for topic, ahead := range seen {
		if topic == "__consumer_offsets" || k.topicConfigs[topic]["message.timestamp.type"] == "LogAppendTime" {
			judge(ahead, "synchronize the brokers and this machine with NTP", "the brokers' clock is %s ahead of ours, by the last record of %s", age(ahead), topic)
		} else if ahead >= skewWarn {
			futures = append(futures, future{topic, ahead})
		}
	}
	if len(futures) > 0 {
		slices.SortFunc(futures, func(a, b future) int { return cmp.Or(cmp.Compare(b.ahead, a.ahead), cmp.Compare(a.topic, b.topic)) })
		var words []string
		for _, f := range futures {
			words = append(words, fmt.Sprintf("%s (%s)", f.topic, age(f.ahead)))
		}
		judge(futures[0].ahead, "look at the clocks of those who publish there", "records are stamped later than now, so that reading by time, lag in seconds and retention go wrong: %s", some(words))
	}
	if len(out) == 0 && compared > 0 {
		out = append(out, fine("clocks", "none that can be seen from here is wrong; it is %s", k.now.Format("2006-01-02 15:04:05 MST")))
	}
	return out
}

func (k *checkup) judgeMachine() []finding {
	switch {
	case k.fileLimit == 0:
		return nil
	case k.fileLimit < fewFiles:
		return []finding{warn("machine", "ulimit -n 65536, or LimitNOFILE in the service's unit", "a process may have %d files and connections open: a service or registry with many clients runs out of them", k.fileLimit)}
	}
	return []finding{fine("machine", "a process may have %s files and connections open", number(int64(min(k.fileLimit, 1<<62))))}
}
