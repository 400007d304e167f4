package topics

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Plan gives the changes that lead from have to want, sorted by topic, then the topics of have that want does not
// name. It is pure: the same arguments give the same plan, and a plan made after applying it is empty.
//
// Only what want says is compared. A configuration that the broker decides is no difference, equal values in other
// units are equal, and names with a leading underscore, which belong to Kafka and to tools, are not listed as unmanaged.
func Plan(want, have []Spec) []Change {
	var (
		changes []Change
		known   = map[string]Spec{} // of the cluster
		names   = map[string]Spec{} // of the cluster, with . and _ as one
		managed = map[string]Spec{}
	)
	for _, h := range have {
		known[h.Name] = h
		names[folded(h.Name)] = h
	}
	want = slices.Clone(want)
	slices.SortStableFunc(want, func(a, b Spec) int { return strings.Compare(a.Name, b.Name) })
	for _, w := range want {
		h, exists := known[w.Name]
		twice, described := managed[w.Name]
		twin, like := names[folded(w.Name)]
		managed[w.Name] = w
		problems := w.problems()
		switch {
		case described:
			changes = append(changes, refuse(w, fmt.Sprintf("the topic is described twice (%s, %s): keep one", twice.place(), w.place())))
		case len(problems) > 0:
			for _, p := range problems {
				changes = append(changes, refuse(w, p.text))
			}
		case w.Absent && exists:
			changes = append(changes, Change{
				Topic: w.Name, What: Delete, Have: h.summary(), Want: "absent", Destroys: true,
				Warning: "all its events are lost",
			})
		case w.Absent:
		case !exists && like:
			changes = append(changes, refuse(w, fmt.Sprintf("the cluster has %s, which differs in . and _ alone: choose another name", twin.Name)))
		case !exists:
			changes = append(changes, Change{Topic: w.Name, What: Create, Have: "absent", Want: w.summary(), Spec: &w})
		default:
			changes = append(changes, alterations(w, h)...)
		}
	}
	return append(changes, unmanaged(managed, have)...)
}

func refuse(w Spec, why string) Change {
	return Change{Topic: w.Name, What: Invalid, Have: w.place(), Want: "a valid spec", Refused: why}
}

func unmanaged(managed map[string]Spec, have []Spec) []Change {
	var changes []Change
	for _, h := range have {
		if _, ok := managed[h.Name]; !ok && !strings.HasPrefix(h.Name, "_") {
			changes = append(changes, Change{Topic: h.Name, What: Unmanaged, Have: h.summary(), Want: h.summary()})
		}
	}
	slices.SortFunc(changes, func(a, b Change) int { return strings.Compare(a.Topic, b.Topic) })
	return changes
}

// alterations are the changes to a topic that exists.
func alterations(w, h Spec) []Change {
	var changes []Change
	if w.Partitions != h.Partitions {
		c := Change{Topic: w.Name, What: Partitions, Have: decimal(h.Partitions), Want: decimal(w.Partitions)}
		if w.Partitions < h.Partitions {
			c.Refused = "Kafka cannot remove partitions: make a topic with fewer and copy the events, or write " + c.Have + " in the file"
		} else {
			c.Warning = "keys move to other partitions: events of one key before and after the change have no order between them, and state kept per partition must be rebuilt"
		}
		changes = append(changes, c)
	}
	if w.Replicas != 0 && h.Replicas != 0 && w.Replicas != h.Replicas {
		changes = append(changes, Change{
			Topic: w.Name, What: Replicas, Have: decimal(h.Replicas), Want: decimal(w.Replicas),
			Refused: "replicas move whole partitions between brokers: use kafka-reassign-partitions, then plan again",
		})
	}
	wanted, present := w.configs(), h.configs()
	for _, k := range sortedKeys(union(wanted, present)) {
		wv, wants := wanted[k]
		hv, has := present[k]
		switch {
		case wants && has && wv == hv:
		case wants:
			c := Change{Topic: w.Name, What: k, Have: NotSet, Want: human(k, wv), Warning: warning(k, hv, wv)}
			if has {
				c.Have = human(k, hv)
			}
			changes = append(changes, c)
		case transient(k):
		default:
			changes = append(changes, Change{
				Topic: w.Name, What: k, Have: human(k, hv), Want: NotSet, Destroys: true,
				Warning: "the broker's default then decides; to keep the value write it in the file",
			})
		}
	}
	return changes
}

// transient are the settings that Kafka's own tools put on a topic while they move partitions, and take away after.
func transient(key string) bool { return strings.HasSuffix(key, ".replication.throttled.replicas") }

// warning is what a new value of a configuration costs. An empty have is the broker's default, which is not known here.
func warning(key, have, want string) string {
	switch key {
	case "retention.ms", "retention.bytes":
		w, errW := strconv.ParseInt(want, 10, 64)
		h, errH := strconv.ParseInt(have, 10, 64)
		if errW == nil && w >= 0 && (errH != nil || h < 0 || w < h) {
			return "events beyond " + human(key, want) + " are deleted"
		}
	case "cleanup.policy":
		switch compacts, did := strings.Contains(want, "compact"), strings.Contains(have, "compact"); {
		case compacts && !did:
			return "only the last event of each key is kept, and events without a key are refused"
		case !compacts && did:
			return "keys older than the retention are lost"
		}
	}
	return ""
}

// configs are the spec's settings in canonical values, its retention among them.
func (s Spec) configs() map[string]string {
	all := make(map[string]string, len(s.Config)+1)
	for k, v := range s.Config {
		if c, err := canonical(k, v); err == nil {
			v = c
		}
		all[k] = v
	}
	switch {
	case s.Retention == Forever:
		all["retention.ms"] = "-1"
	case s.Retention > 0:
		all["retention.ms"] = strconv.FormatInt(int64(s.Retention/time.Millisecond), 10)
	}
	return all
}

// summary is the spec in a line: "12 partitions, 3 replicas, retention.ms=7d".
func (s Spec) summary() string {
	parts := []string{plural(int(s.Partitions), "partition")}
	if s.Replicas > 0 {
		parts = append(parts, plural(int(s.Replicas), "replica"))
	}
	configs := s.configs()
	for _, k := range sortedKeys(configs) {
		parts = append(parts, k+"="+human(k, configs[k]))
	}
	return strings.Join(parts, ", ")
}

func (s Spec) place() string {
	if s.File == "" {
		return "no file"
	}
	return fmt.Sprintf("%s:%d", s.File, s.Line)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

func decimal[N ~int16 | ~int32](n N) string { return strconv.FormatInt(int64(n), 10) }

func union(a, b map[string]string) map[string]string {
	u := maps.Clone(a)
	maps.Copy(u, b)
	return u
}
