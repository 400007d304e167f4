package deadletter

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace/millrace/kafka"
)

// Depth is how much lies in a dead-letter topic.
type Depth struct {
	// Letters are the offsets from the first record to the last stable one: what is in a transaction that is still
	// open does not count, and what compaction took away does.
	Letters int64
	// Oldest is when the oldest of the first letters of all partitions was written; zero where there is none.
	Oldest time.Time
}

// Depths measures dead-letter topics, by name. One that does not exist is absent: nothing was given up yet. One of which
// a partition does not answer is absent too, and in the error; the others are there all the same. It asks for offsets
// only and reads no record; ctx bounds it.
func Depths(ctx context.Context, c kafka.Cluster, topics ...string) (map[string]Depth, error) {
	if len(topics) == 0 {
		return nil, nil
	}
	client, err := c.Client()
	if err != nil {
		return nil, fmt.Errorf("connect to measure dead letters: %w", err)
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	known, err := adm.ListTopics(ctx, topics...)
	if err != nil {
		return nil, fmt.Errorf("look up dead-letter topics: %w", c.Explain(err, "Describe", "topic "+topics[0]))
	}
	var errs []error
	var there []string
	for _, t := range topics {
		switch err := known[t].Err; {
		case err == nil:
			there = append(there, t)
		case !errors.Is(err, kerr.UnknownTopicOrPartition):
			errs = append(errs, fmt.Errorf("look up dead-letter topic %s: %w", t, c.Explain(err, "Describe", "topic "+t)))
		}
	}
	if len(there) == 0 {
		return nil, errors.Join(errs...)
	}
	// By time, brokers tell the offset and the timestamp of the first record there is: none has to be read.
	first, errFirst := adm.ListOffsetsAfterMilli(ctx, 0, there...)
	end, errEnd := adm.ListCommittedOffsets(ctx, there...)
	silent := c.Explain(cmp.Or(errFirst, errEnd, errNoAnswer), "Describe", "cluster")
	out := map[string]Depth{}
	for _, t := range there {
		d, err := depth(len(known[t].Partitions), first[t], end[t], silent)
		if err != nil {
			errs = append(errs, fmt.Errorf("measure dead letters in %s: %w", t, c.Explain(err, "Describe", "topic "+t)))
			continue
		}
		out[t] = d
	}
	return out, errors.Join(errs...)
}

var errNoAnswer = errors.New("no answer from the leader of a partition")

// depth sums partitions up; silent is the error where one of them did not answer.
func depth(partitions int, first, end map[int32]kadm.ListedOffset, silent error) (Depth, error) {
	var d Depth
	answered := 0
	for p, f := range first {
		e, ok := end[p]
		switch {
		case !ok:
			continue
		case f.Err != nil:
			return Depth{}, f.Err
		case e.Err != nil:
			return Depth{}, e.Err
		}
		if answered++; e.Offset <= f.Offset {
			continue // empty, or retention was faster than we between the two questions
		}
		d.Letters += e.Offset - f.Offset
		if at := time.UnixMilli(f.Timestamp); f.Timestamp >= 0 && (d.Oldest.IsZero() || at.Before(d.Oldest)) {
			d.Oldest = at
		}
	}
	if answered < partitions {
		return Depth{}, silent
	}
	return d, nil
}
