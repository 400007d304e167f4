package topics

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/millrace/millrace/schemas"
)

// specJSON is a spec in a plan's JSON: the fields and the words of a topic's file.
type specJSON struct {
	Name        string            `json:"name"`
	Owner       string            `json:"owner,omitempty"`
	Description string            `json:"description,omitempty"`
	Key         string            `json:"key,omitempty"`
	Partitions  int32             `json:"partitions,omitempty"`
	Replicas    int16             `json:"replicas,omitempty"`
	Retention   string            `json:"retention,omitempty"`
	Config      map[string]string `json:"config,omitempty"`
	Events      []string          `json:"events,omitempty"`
	Naming      string            `json:"naming,omitempty"`
	Absent      bool              `json:"absent,omitempty"`
	File        string            `json:"file,omitempty"`
	Line        int               `json:"line,omitempty"`
}

// MarshalJSON writes the fields as a topic's file names them: "retention":"7d", "naming":"topic-record".
func (s Spec) MarshalJSON() ([]byte, error) {
	j := specJSON{
		Name: s.Name, Owner: s.Owner, Description: s.Description, Key: s.Key, Partitions: s.Partitions, Replicas: s.Replicas,
		Config: s.Config, Events: s.Events, Absent: s.Absent, File: s.File, Line: s.Line,
	}
	switch {
	case s.Retention == Forever:
		j.Retention = "forever"
	case s.Retention > 0:
		j.Retention = human("retention.ms", fmt.Sprint(int64(s.Retention/time.Millisecond)))
	}
	if s.Naming != schemas.ByTopic {
		j.Naming = s.Naming.String()
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Spec) UnmarshalJSON(src []byte) error {
	var j specJSON
	if err := json.Unmarshal(src, &j); err != nil {
		return err
	}
	*s = Spec{
		Name: j.Name, Owner: j.Owner, Description: j.Description, Key: j.Key, Partitions: j.Partitions, Replicas: j.Replicas,
		Config: j.Config, Events: j.Events, Absent: j.Absent, File: j.File, Line: j.Line,
	}
	if j.Retention != "" {
		var err error
		if s.Retention, err = parseRetention(j.Retention); err != nil {
			return err
		}
	}
	if j.Naming == "" {
		return nil
	}
	naming, ok := namings[j.Naming]
	if !ok {
		return fmt.Errorf("naming is %q: topic, record or topic-record is allowed", clip(j.Naming))
	}
	s.Naming = naming
	return nil
}

// namings are the words for how subjects are called.
var namings = map[string]schemas.Naming{"topic": schemas.ByTopic, "record": schemas.ByRecord, "topic-record": schemas.ByTopicRecord}
