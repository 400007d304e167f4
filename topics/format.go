package topics

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/millrace/millrace/schemas"
)

// Format is the file of a topic: [Load] reads it back to an equal spec, with values in human units. Its Owner must be
// set, for Load wants one; File and Line are not written.
//
// left names the configurations that a file cannot hold: those that Kafka's tools put on a topic for a while, and those
// that this version does not know. They stand in the file as a comment, and Plan would unset them.
func Format(s Spec) (file []byte, left []string) {
	var doc yaml.Node
	doc.Kind = yaml.MappingNode
	put := func(key string, value *yaml.Node) {
		doc.Content = append(doc.Content, word(key), value)
	}
	put("name", word(s.Name))
	if s.Absent {
		put("absent", &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: "true"})
	}
	for _, f := range []struct{ key, value string }{{"owner", s.Owner}, {"description", strings.TrimSpace(s.Description)}, {"key", s.Key}} {
		if f.value != "" {
			put(f.key, word(f.value))
		}
	}
	if s.Partitions > 0 {
		put("partitions", whole(int64(s.Partitions)))
	}
	if s.Replicas > 0 {
		put("replicas", whole(int64(s.Replicas)))
	}
	switch {
	case s.Retention == Forever:
		put("retention", word("forever"))
	case s.Retention > 0:
		put("retention", word(human("retention.ms", fmt.Sprint(int64(s.Retention/time.Millisecond)))))
	}
	config := &yaml.Node{Kind: yaml.MappingNode}
	for _, k := range sortedKeys(s.Config) {
		if _, err := canonical(k, s.Config[k]); err != nil || transient(k) {
			left = append(left, k)
			continue
		}
		config.Content = append(config.Content, word(k), configured(k, s.Config[k]))
	}
	if len(config.Content) > 0 {
		put("config", config)
	}
	if len(s.Events) > 0 {
		events := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, e := range s.Events {
			events.Content = append(events.Content, word(e))
		}
		put("events", events)
	}
	if s.Naming != schemas.ByTopic {
		put("naming", word(s.Naming.String()))
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		panic("topics: nodes that were just made do not encode: " + err.Error())
	}
	for _, k := range left {
		fmt.Fprintf(&b, "# left out: %q is %q\n", k, s.Config[k])
	}
	return b.Bytes(), left
}

// word is text, in quotes where YAML would take it for something else.
func word(text string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(text)
	return n
}

// configured is the value of a configuration: 7d, 1GiB, and a number or a word where no unit is shorter.
func configured(key, value string) *yaml.Node {
	if c, err := canonical(key, value); err == nil && settings[key].kind != text {
		value = human(key, value)
		if value == c || value == c+"B" || value == c+"ms" {
			return &yaml.Node{Kind: yaml.ScalarNode, Value: c}
		}
	}
	return word(value)
}

func whole(n int64) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: fmt.Sprint(n)}
}
