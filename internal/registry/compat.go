package registry

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Level says which older schemas a new one must get along with.
type Level string

// The compatibility levels. The transitive ones look at every version, the others at the latest.
const (
	LevelNone               Level = "NONE"
	LevelBackward           Level = "BACKWARD" // the new schema reads what the old one wrote
	LevelBackwardTransitive Level = "BACKWARD_TRANSITIVE"
	LevelForward            Level = "FORWARD" // the old schema reads what the new one writes
	LevelForwardTransitive  Level = "FORWARD_TRANSITIVE"
	LevelFull               Level = "FULL" // both
	LevelFullTransitive     Level = "FULL_TRANSITIVE"
)

var levels = []Level{
	LevelNone, LevelBackward, LevelBackwardTransitive, LevelForward, LevelForwardTransitive, LevelFull, LevelFullTransitive,
}

func (l Level) transitive() bool { return strings.HasSuffix(string(l), "_TRANSITIVE") }

// The bounds of one comparison: two schemas of a megabyte have billions of pairs.
const (
	maxPairs     = 500_000
	maxConflicts = 100
)

var errTooManyPairs = errors.New("the schemas are too large to compare: split the unions")

// conflict is one reason why a reader cannot read what a writer wrote. Types are those of Avro's SchemaCompatibility.
type conflict struct {
	kind     string // "TYPE_MISMATCH"
	location string // JSON pointer into the reader
	message  string
}

// compatible compares a new schema with an old one by a level. It gives every conflict.
func compatible(l Level, old, candidate *node) ([]conflict, error) {
	var all []conflict
	if strings.HasPrefix(string(l), "BACKWARD") || strings.HasPrefix(string(l), "FULL") {
		cs, err := canRead(candidate, old)
		if err != nil {
			return nil, err
		}
		all = append(all, cs...)
	}
	if strings.HasPrefix(string(l), "FORWARD") || strings.HasPrefix(string(l), "FULL") {
		cs, err := canRead(old, candidate)
		if err != nil {
			return nil, err
		}
		for _, c := range cs {
			if !slices.Contains(all, c) {
				all = append(all, c)
			}
		}
	}
	return all, nil
}

// canRead gives the reasons why reader cannot read what writer wrote, by the rules of Avro's Java library.
func canRead(reader, writer *node) ([]conflict, error) {
	c := checker{pairs: map[[2]*node][]conflict{}}
	found := c.check(reader, writer, nil)
	return c.distinct(found), c.err
}

// checker remembers the pairs it has compared, and takes a pair that it is comparing for compatible: types recurse.
type checker struct {
	pairs map[[2]*node][]conflict
	err   error
}

func (c *checker) distinct(all []conflict) []conflict {
	var some []conflict
	for _, x := range all {
		if !slices.Contains(some, x) {
			some = append(some, x)
		}
		if len(some) == maxConflicts {
			break
		}
	}
	return some
}

type path []string

func (p path) to(steps ...string) path { return append(slices.Clip(p), steps...) }
func (p path) String() string          { return "/" + strings.Join(p, "/") }

func (c *checker) check(r, w *node, at path) []conflict {
	pair := [2]*node{r, w}
	if known, ok := c.pairs[pair]; ok {
		return known
	}
	if len(c.pairs) == maxPairs {
		c.err = errTooManyPairs
		return nil
	}
	c.pairs[pair] = nil
	found := c.compare(r, w, at)
	if len(found) > maxConflicts {
		found = found[:maxConflicts]
	}
	c.pairs[pair] = found
	return found
}

func (c *checker) compare(r, w *node, at path) []conflict {
	if r.kind != w.kind {
		return c.compareKinds(r, w, at)
	}
	switch r.kind {
	case kindArray:
		return c.check(r.items, w.items, at.to("items"))
	case kindMap:
		return c.check(r.items, w.items, at.to("values"))
	case kindFixed:
		found := names(r, w, at)
		if r.size != w.size {
			found = append(found, conflict{"FIXED_SIZE_MISMATCH", at.to("size").String(), fmt.Sprintf("expected: %d, found: %d", w.size, r.size)})
		}
		return found
	case kindEnum:
		return append(names(r, w, at), symbols(r, w, at)...)
	case kindRecord:
		return append(names(r, w, at), c.fields(r, w, at)...)
	case kindUnion:
		var found []conflict
		for i, b := range w.branches {
			if len(c.check(r, b, nil)) > 0 {
				found = append(found, missingBranch(b, at.to(strconv.Itoa(i))))
			}
		}
		return found
	default:
		return nil
	}
}

// promotions are the writers that each reader reads besides its own type.
var promotions = map[kind][]kind{
	kindLong:   {kindInt},
	kindFloat:  {kindInt, kindLong},
	kindDouble: {kindInt, kindLong, kindFloat},
	kindBytes:  {kindString},
	kindString: {kindBytes},
}

func (c *checker) compareKinds(r, w *node, at path) []conflict {
	switch {
	case w.kind == kindUnion:
		var found []conflict
		for i, b := range w.branches {
			found = append(found, c.check(r, b, at.to(strconv.Itoa(i)))...)
		}
		return found
	case r.kind == kindUnion:
		for _, b := range r.branches {
			if len(c.check(b, w, nil)) == 0 {
				return nil
			}
		}
		return []conflict{missingBranch(w, at)}
	case slices.Contains(promotions[r.kind], w.kind):
		return nil
	}
	return []conflict{{"TYPE_MISMATCH", at.String(), fmt.Sprintf("reader type: %s not compatible with writer type: %s", upper(r.kind), upper(w.kind))}}
}

func missingBranch(w *node, at path) conflict {
	return conflict{"MISSING_UNION_BRANCH", at.String(), "reader union lacking writer type: " + upper(w.kind)}
}

func upper(k kind) string { return strings.ToUpper(string(k)) }

// names compares simple names; a namespace may change. Aliases are full names.
func names(r, w *node, at path) []conflict {
	if r.name.name == w.name.name || slices.Contains(r.aliases, w.name) {
		return nil
	}
	return []conflict{{"NAME_MISMATCH", at.to("name").String(), "expected: " + w.name.full()}}
}

func symbols(r, w *node, at path) []conflict {
	if r.enumDefault != "" {
		return nil
	}
	known := map[string]bool{}
	for _, s := range r.symbols {
		known[s] = true
	}
	var missing []string
	for _, s := range w.symbols {
		if !known[s] {
			missing = append(missing, s)
		}
	}
	if missing == nil {
		return nil
	}
	slices.Sort(missing)
	return []conflict{{"MISSING_ENUM_SYMBOLS", at.to("symbols").String(), "[" + strings.Join(missing, ", ") + "]"}}
}

func (c *checker) fields(r, w *node, at path) []conflict {
	byName := make(map[string]*field, len(w.fields))
	for i := range w.fields {
		byName[w.fields[i].name] = &w.fields[i]
	}
	var found []conflict
	for i := range r.fields {
		f := &r.fields[i]
		here := at.to("fields", strconv.Itoa(i))
		match, twice := writersField(f, byName)
		switch {
		case twice:
			found = append(found, conflict{"READER_FIELD_AMBIGUOUS", here.String(), fmt.Sprintf("%s and its aliases match several fields of the writer", f.name)})
		case match != nil:
			found = append(found, c.check(f.schema, match.schema, here.to("type"))...)
		case f.hasDefault:
		case f.schema.kind == kindEnum && f.schema.enumDefault != "":
			// Java compares the enum with the writer's record here, which never fits.
			found = append(found, c.check(f.schema, w, here.to("type"))...)
		default:
			found = append(found, conflict{"READER_FIELD_MISSING_DEFAULT_VALUE", here.String(), f.name})
		}
	}
	return found
}

// writersField is the writer's field that a reader's field reads, by name or alias; twice when there are several.
func writersField(f *field, writer map[string]*field) (match *field, twice bool) {
	match = writer[f.name]
	for _, a := range f.aliases {
		m := writer[a]
		if m == nil || m == match {
			continue
		}
		if match != nil {
			return nil, true
		}
		match = m
	}
	return match, false
}
