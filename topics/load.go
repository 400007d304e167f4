package topics

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/millrace/millrace/schemas"
)

// The bounds on what Load reads: files come from repositories that others write to.
const (
	maxFile  = 64 << 10
	maxFiles = 10_000
	maxFlaws = 100 // reported per load
)

// FileError is what is wrong with a topic's file, and where.
type FileError struct {
	File string // relative to the folder that was loaded
	Line int    // 1-based; 0 when the whole file is meant
	Text string // what is wrong, and what is allowed
}

func (e *FileError) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Text
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text)
}

// Load reads every *.yaml and *.yml of fsys, folders within it included and hidden ones left out, and gives the topics
// sorted by name. The error joins one *FileError for each fault of each file: unknown and doubled fields, bad names,
// units and counts, two files with one topic. YAML's anchors, aliases, tags and merge keys are refused.
func Load(fsys fs.FS) ([]Spec, error) {
	var (
		specs []Spec
		errs  []error
		files int
	)
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		switch ext := path.Ext(p); {
		case err != nil:
			return err
		case p != "." && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir() || ext != ".yaml" && ext != ".yml":
			return nil
		}
		if files++; files > maxFiles {
			return fmt.Errorf("more than %d files", maxFiles)
		}
		spec, flaws := loadFile(fsys, p)
		if len(flaws) == 0 {
			specs = append(specs, spec)
		}
		if errs = append(errs, flaws...); len(errs) > maxFlaws {
			errs = errs[:maxFlaws]
			return fs.SkipAll
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load topics: %w", err)
	}
	slices.SortStableFunc(specs, func(a, b Spec) int { return strings.Compare(a.Name, b.Name) })
	errs = append(errs, clashes(specs)...)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return specs, nil
}

// clashes finds topics that two files describe, and names that differ in . and _ alone, which Kafka holds for one.
func clashes(specs []Spec) []error {
	var errs []error
	first := map[string]Spec{}
	for _, s := range specs {
		other, ok := first[folded(s.Name)]
		switch {
		case !ok:
			first[folded(s.Name)] = s
		case other.Name == s.Name:
			errs = append(errs, &FileError{s.File, s.Line, fmt.Sprintf("topic %s is described twice: also in %s:%d", s.Name, other.File, other.Line)})
		default:
			errs = append(errs, &FileError{s.File, s.Line, fmt.Sprintf("topic %s differs from %s (%s:%d) in . and _ alone: Kafka refuses one of them", s.Name, other.Name, other.File, other.Line)})
		}
	}
	return errs
}

func folded(name string) string { return strings.ReplaceAll(name, ".", "_") }

func loadFile(fsys fs.FS, name string) (Spec, []error) {
	f, err := fsys.Open(name)
	if err != nil {
		return Spec{}, []error{fmt.Errorf("open topic file: %w", err)}
	}
	defer func() { _ = f.Close() }() // it was read only
	src, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return Spec{}, []error{fmt.Errorf("read topic file: %w", err)}
	case len(src) > maxFile:
		return Spec{}, []error{&FileError{name, 0, fmt.Sprintf("the file is larger than %d KiB", maxFile>>10)}}
	}
	p := fileParser{file: name}
	return p.parse(src), p.errs
}

// fileParser turns the YAML nodes of one file into a Spec. It works on nodes, because they have lines, and because
// nothing is expanded in them: an alias is a node to refuse, not a copy to make.
type fileParser struct {
	file string
	errs []error
}

func (p *fileParser) flaw(n *yaml.Node, format string, args ...any) {
	line := 0
	if n != nil {
		line = n.Line
	}
	p.errs = append(p.errs, &FileError{p.file, line, fmt.Sprintf(format, args...)})
}

var fields = []string{"name", "owner", "description", "key", "partitions", "replicas", "retention", "config", "events", "naming", "absent"}

func (p *fileParser) parse(src []byte) Spec {
	var doc, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(src))
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		p.flaw(nil, "the file is empty: a topic has at least name, owner and partitions")
		return Spec{}
	case err != nil:
		p.errs = append(p.errs, syntaxError(p.file, err))
		return Spec{}
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		p.flaw(&more, "a second document: a file describes one topic")
		return Spec{}
	}
	root := doc.Content[0]
	where := map[string]*yaml.Node{}
	spec := Spec{File: p.file, Line: root.Line}
	p.mapping(root, "a topic is fields with values, such as name: shop.orders", func(key, value *yaml.Node) {
		where[key.Value] = key
		p.field(&spec, key, value, where)
	})
	if len(p.errs) > 0 {
		return Spec{}
	}
	for _, must := range []string{"owner", "partitions"} {
		if where[must] == nil && !spec.Absent {
			p.flaw(root, "%s is missing", must)
			spec.Partitions = max(spec.Partitions, 1)
		}
	}
	for _, pr := range spec.problems() {
		at := where[pr.field]
		if at == nil {
			at = root
		}
		p.flaw(at, "%s", pr.text)
	}
	if n := where["name"]; n != nil {
		spec.Line = n.Line
	}
	return spec
}

func (p *fileParser) field(spec *Spec, key, value *yaml.Node, where map[string]*yaml.Node) {
	switch key.Value {
	case "name":
		spec.Name = p.text(key, value)
	case "owner":
		if spec.Owner = p.text(key, value); spec.Owner == "" {
			p.flaw(key, "owner is empty: the team that answers for the topic")
		}
	case "description":
		spec.Description = strings.TrimSpace(p.text(key, value))
	case "key":
		spec.Key = p.text(key, value)
	case "partitions":
		spec.Partitions = int32(p.number(key, value, math.MaxInt32))
	case "replicas":
		if spec.Replicas = int16(p.number(key, value, math.MaxInt16)); spec.Replicas == 0 {
			p.flaw(value, "replicas is 0: 1 to %d are allowed; leave it out for the broker's default", maxReplicas)
		}
	case "retention":
		var err error
		if spec.Retention, err = parseRetention(p.text(key, value)); err != nil {
			p.flaw(value, "%s", err)
		}
	case "config":
		spec.Config = map[string]string{}
		p.mapping(value, "config is names with values, such as segment.bytes: 1GiB", func(k, v *yaml.Node) {
			where["config/"+k.Value] = k
			spec.Config[k.Value] = p.setting(k, v)
		})
	case "events":
		for _, n := range p.items(value, "events is a list of Avro full names, such as [shop.OrderPlaced]") {
			spec.Events = append(spec.Events, p.text(n, n))
		}
	case "naming":
		spec.Naming = p.naming(key, value)
	case "absent":
		v := p.text(key, value)
		if spec.Absent = v == "true"; v != "true" && v != "false" {
			p.flaw(value, "absent is %q: true or false is allowed", clip(v))
		}
	default:
		p.flaw(key, "unknown field %q%s", clip(key.Value), suggest(key.Value, slices.Clone(fields)))
	}
}

func (p *fileParser) naming(key, value *yaml.Node) schemas.Naming {
	v := p.text(key, value)
	naming, ok := namings[v]
	if !ok {
		p.flaw(value, "naming is %q: topic, record or topic-record is allowed", clip(v))
	}
	return naming
}

// setting is the value of a configuration; a list may be written as one.
func (p *fileParser) setting(key, value *yaml.Node) string {
	if value.Kind != yaml.SequenceNode {
		return p.text(key, value)
	}
	var words []string
	for _, n := range p.items(value, "a list of words") {
		words = append(words, p.text(key, n))
	}
	return strings.Join(words, ",")
}

func (p *fileParser) text(key, value *yaml.Node) string {
	if !p.plain(value) {
		return ""
	}
	if value.Kind != yaml.ScalarNode || value.Tag == "!!null" {
		p.flaw(value, "%s needs one value", clip(key.Value))
		return ""
	}
	return value.Value
}

func (p *fileParser) number(key, value *yaml.Node, most int64) int64 {
	s := p.text(key, value)
	n, err := strconv.ParseInt(s, 10, 64)
	if s != "" && (err != nil || n < 0 || n > most) {
		p.flaw(value, "%s is %q: a whole number is allowed", key.Value, clip(s))
		return 1
	}
	return n
}

func (p *fileParser) items(value *yaml.Node, shape string) []*yaml.Node {
	if !p.plain(value) {
		return nil
	}
	if value.Kind != yaml.SequenceNode {
		p.flaw(value, "%s", shape)
		return nil
	}
	return value.Content
}

func (p *fileParser) mapping(value *yaml.Node, shape string, each func(key, value *yaml.Node)) {
	if !p.plain(value) {
		return
	}
	if value.Kind != yaml.MappingNode {
		p.flaw(value, "%s", shape)
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(value.Content); i += 2 {
		key := value.Content[i]
		switch line, twice := lines[key.Value]; {
		case !p.plain(key):
		case key.Kind != yaml.ScalarNode:
			p.flaw(key, "a field's name is one word")
		case twice:
			p.flaw(key, "%s is set twice: also on line %d", clip(key.Value), line)
		default:
			lines[key.Value] = key.Line
			each(key, value.Content[i+1])
		}
		if len(p.errs) > maxFlaws {
			return
		}
	}
}

// plain refuses the parts of YAML that make a file mean more than it shows.
func (p *fileParser) plain(n *yaml.Node) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		p.flaw(n, "an alias (*%s): write the value out", clip(n.Value))
	case n.Anchor != "":
		p.flaw(n, "an anchor (&%s): write the value where it is used", clip(n.Anchor))
	case n.Tag == "!!merge":
		p.flaw(n, "a merge key (<<): write the fields out")
	case n.Style&yaml.TaggedStyle != 0:
		p.flaw(n, "a tag (%s): write the plain value", clip(n.Tag))
	default:
		return true
	}
	return false
}

// syntaxError takes the line out of the library's message ("yaml: line 3: …"), so that all errors read alike.
func syntaxError(file string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 0
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if n, after, ok := strings.Cut(rest, ": "); ok {
			if l, err := strconv.Atoi(n); err == nil {
				line, text = l, after
			}
		}
	}
	return &FileError{file, line, "no YAML: " + text}
}
