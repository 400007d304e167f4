package gateway

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/textproto"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/signature"
)

// The bounds on what is loaded.
const (
	maxFile   = 64 << 10
	maxFiles  = 1000
	maxFlaws  = 100
	maxSecret = 64 << 10
	maxKeys   = 16
	maxEvents = 32 // of a source: each has a bit
	maxBody   = 16 << 20
)

// FileError is what is wrong with a source's file, and where.
type FileError struct {
	File string // relative to the folder
	Line int    // from 1; 0 when the whole file is meant
	Text string // what is wrong, and what is allowed
}

func (e *FileError) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Text
	}
	return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text)
}

// Folder is where sources are described.
type Folder struct {
	// Dir holds a *.yaml for each source. Files in folders within it are not sources: the place for schemes.
	Dir string
	// Getenv reads the variables that secrets are in. Nil has none.
	Getenv func(string) string
	// MaxBody is the largest body that fits a record, and what a source without limits.body may send at most, when it is
	// below 1 MiB.
	MaxBody int64
	// Lenient takes a secret that cannot be read here for one that can elsewhere: for a list. Its source has no key of it,
	// and says so behind its place in Secrets.
	Lenient bool
}

// Load reads the sources, sorted by name. The error joins one [*FileError] for each fault of each file: nothing is
// taken of a folder with a fault. Schemas of typed events are looked up in reg.
//
// Environment and files that hold secrets are read each time.
func (f Folder) Load(ctx context.Context, reg *schemas.Registry) ([]*Source, error) {
	l, err := f.load(ctx, reg)
	return l.sources, err
}

// loaded is what a load came to. print tells one content of the folder, and of the secrets' files, from another.
type loaded struct {
	sources []*Source
	print   [sha256.Size]byte
}

func (f Folder) load(ctx context.Context, reg *schemas.Registry) (loaded, error) {
	if f.Getenv == nil {
		f.Getenv = func(string) string { return "" }
	}
	if f.MaxBody <= 0 {
		f.MaxBody = maxBody
	}
	root, err := os.OpenRoot(f.Dir)
	if err != nil {
		return loaded{}, fmt.Errorf("open the folder of sources: %w", err)
	}
	defer func() { _ = root.Close() }()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return loaded{}, fmt.Errorf("read the folder of sources: %w", err)
	}
	hash := sha256.New()
	var (
		out   loaded
		errs  []error
		names = map[string]*Source{}
		files int
	)
	for _, e := range entries {
		name := e.Name()
		if ext := path.Ext(name); strings.HasPrefix(name, ".") || e.IsDir() || ext != ".yaml" && ext != ".yml" {
			continue
		}
		if files++; files > maxFiles {
			return out, fmt.Errorf("%s has more than %d sources", f.Dir, maxFiles)
		}
		p := &parser{folder: f, root: root, file: name, seen: hash, reg: reg}
		s := p.load(ctx)
		if len(p.errs) == 0 {
			if first := names[s.Name]; first != nil {
				p.errs = append(p.errs, &FileError{name, s.line, fmt.Sprintf("source %s is described twice: also in %s", s.Name, first.file)})
			}
			names[s.Name] = s
			out.sources = append(out.sources, s)
		}
		errs = append(errs, p.errs...)
	}
	hash.Sum(out.print[:0])
	if len(errs) > 0 {
		return loaded{print: out.print}, errors.Join(errs[:min(len(errs), maxFlaws)]...)
	}
	slices.SortFunc(out.sources, func(a, b *Source) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// read returns a file, and notes its content for the print.
func (p *parser) read(open func() (io.ReadCloser, error), most int64) ([]byte, error) {
	f, err := open()
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was read only
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("it is larger than %d KiB", most>>10)
	}
	fmt.Fprintf(p.seen, "%d ", len(b))
	_, _ = p.seen.Write(b)
	return b, err
}

// inDir reads a file of the folder.
func (p *parser) inDir(name string) ([]byte, error) {
	return p.read(func() (io.ReadCloser, error) { return p.root.Open(filepath.FromSlash(name)) }, maxFile)
}

// parser turns the YAML nodes of one file into a Source. Nodes have lines, and nothing is expanded in them.
type parser struct {
	folder Folder
	root   *os.Root
	file   string
	seen   io.Writer
	reg    *schemas.Registry
	errs   []error
}

func (p *parser) flaw(n *yaml.Node, format string, args ...any) {
	line := 0
	if n != nil {
		line = n.Line
	}
	p.errs = append(p.errs, &FileError{p.file, line, fmt.Sprintf(format, args...)})
}

// spec is a file before it is checked as a whole.
type spec struct {
	*Source

	at         map[string]*yaml.Node
	verify     string
	secrets    []secretSpec
	tokens     []secretSpec
	dedupe     *yaml.Node
	events     []*yaml.Node
	schemeNode *yaml.Node
}

type secretSpec struct {
	node  *yaml.Node
	from  string // env:NAME or file:PATH
	text  string
	until time.Time
}

func (p *parser) load(ctx context.Context) *Source {
	fmt.Fprintf(p.seen, "%q ", p.file) // a file that is renamed is another source
	src, err := p.inDir(p.file)
	if err != nil {
		p.flaw(nil, "read it: %v", err)
		return nil
	}
	root := p.document(src, "a source is fields with values, such as scheme: stripe")
	if root == nil {
		return nil
	}
	s := &spec{Source: &Source{file: p.file, line: root.Line, MaxRequests: defaultMaxRequests}, at: map[string]*yaml.Node{}}
	s.Name = strings.TrimSuffix(p.file, path.Ext(p.file))
	p.mapping(root, "a source is fields with values, such as scheme: stripe", func(k, v *yaml.Node) {
		s.at[k.Value] = k
		p.field(s, k, v)
	})
	if len(p.errs) > 0 {
		return nil
	}
	p.finish(ctx, root, s)
	return s.Source
}

// document is the one document of a file.
func (p *parser) document(src []byte, shape string) *yaml.Node {
	var doc, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(src))
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		p.flaw(nil, "the file is empty: %s", shape)
		return nil
	case err != nil:
		p.errs = append(p.errs, syntax(p.file, err))
		return nil
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		p.flaw(&more, "a second document: a file describes one thing")
		return nil
	}
	return doc.Content[0]
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntax takes the line out of the library's message, so that all errors read alike.
func syntax(file string, err error) error {
	m := yamlLine.FindStringSubmatch(err.Error())
	if m == nil {
		return &FileError{file, 0, err.Error()}
	}
	line, _ := strconv.Atoi(m[1]) // none is 0
	return &FileError{file, line, strings.TrimPrefix(err.Error(), m[0])}
}

var fields = []string{
	"name", "scheme", "verify", "secrets", "tokens", "public_url", "topic", "key", "type", "headers", "limits",
	"gzip", "confirm", "dedupe", "event",
}

func (p *parser) field(s *spec, k, v *yaml.Node) {
	switch k.Value {
	case "name":
		s.Name = p.text(k, v)
	case "scheme":
		s.schemeNode = v
	case "verify":
		if s.verify = p.text(k, v); s.verify != "none" {
			p.flaw(v, "verify is %q: only none is allowed, which takes what anybody sends; leave it out to verify by the scheme", s.verify)
		}
	case "secrets":
		s.secrets = p.secretList(k, v)
	case "tokens":
		s.tokens = p.secretList(k, v)
	case "public_url":
		s.PublicURL = p.publicURL(k, v)
	case "topic":
		s.Topic = p.topic(k, v)
	case "key":
		s.Key = p.pick(k, v)
	case "type":
		s.Type = p.pick(k, v)
	case "headers":
		s.headers = map[string]bool{}
		for _, n := range p.items(v, "headers is a list of names, such as [X-GitHub-Event]") {
			s.headers[textproto.CanonicalMIMEHeaderKey(p.text(k, n))] = true
		}
	case "limits":
		p.limits(s, v)
	case "gzip":
		s.Gzip = p.truth(k, v)
	case "confirm":
		s.Confirm = p.truth(k, v)
	case "dedupe":
		s.dedupe = v
	case "event":
		s.events = []*yaml.Node{v}
		if v.Kind == yaml.SequenceNode {
			s.events = v.Content
		}
	default:
		p.flaw(k, "unknown field %q: allowed are %s", clip(k.Value), strings.Join(fields, ", "))
	}
}

var sourceName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// finish checks what concerns several fields.
func (p *parser) finish(ctx context.Context, root *yaml.Node, s *spec) {
	at := func(field string) *yaml.Node { return cmp.Or(s.at[field], root) }
	if !sourceName.MatchString(s.Name) {
		p.flaw(at("name"), "the name is %q: up to 63 of a-z 0-9 . _ - are allowed, a letter or a digit first; it becomes the path /in/NAME", clip(s.Name))
	}
	if s.Topic == "" {
		p.flaw(root, "topic is missing: where what comes in is published")
	}
	p.scheme(s, root)
	if len(p.errs) > 0 {
		return
	}
	p.keys(s, at)
	p.identity(s)
	if s.MaxBody == 0 {
		s.MaxBody = min(1<<20, p.folder.MaxBody)
	}
	if s.MaxBody > p.folder.MaxBody {
		p.flaw(at("limits"), "limits.body is %d: at most %d fit a record with what is kept beside the body; raise max.message.bytes of topic %s, its events' and %s to %d, and start the gateway with --record-bytes %[5]d", s.MaxBody, p.folder.MaxBody, s.Topic, SeenTopic, s.MaxBody+RecordRoom)
	}
	if len(s.events) > maxEvents {
		p.flaw(at("event"), "there are %d events: at most %d", len(s.events), maxEvents)
		return
	}
	for _, n := range s.events {
		if m := p.mapped(ctx, n); m != nil {
			for _, o := range s.Events {
				if o.Type == m.Type && o.Topic == m.Topic {
					m.nth++
				}
			}
			s.Events = append(s.Events, m)
		}
	}
}

// scheme finds the scheme: by name, from a file, or as it stands.
func (p *parser) scheme(s *spec, root *yaml.Node) {
	n := s.schemeNode
	s.deadline = deadlineUnknown
	switch {
	case s.verify == "none" && n != nil:
		p.flaw(n, "there is a scheme and verify: none: one of them")
		return
	case s.verify == "none":
		return
	case n == nil:
		p.flaw(root, "scheme is missing: name one (%s), or write verify: none to take what anybody sends", strings.Join(signature.Names(), ", "))
		return
	case n.Kind == yaml.MappingNode:
		s.Scheme = p.schemeOf(n)
	default:
		name := p.text(n, n)
		if strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml") {
			s.Scheme = p.schemeFile(n, name)
			break
		}
		known, ok := signature.Lookup(name)
		if !ok {
			p.flaw(n, "there is no scheme %q: known are %s; or name a file with one", clip(name), strings.Join(signature.Names(), ", "))
			return
		}
		s.Scheme = known
	}
	if s.Scheme == nil {
		return
	}
	if d := time.Duration(s.Scheme.Sender.Deadline); d > 0 {
		s.deadline = d
	}
	s.secretHeaders = map[string]bool{}
	for _, a := range s.Scheme.Signature.Accept {
		if a.Algorithm == signature.Equal {
			for _, h := range s.Scheme.Signature.Headers {
				s.secretHeaders[textproto.CanonicalMIMEHeaderKey(h)] = true
			}
		}
	}
	s.signsURL = strings.Contains(s.Scheme.Signed, "{url")
	if s.signsURL && s.PublicURL == "" {
		p.flaw(n, "public_url is missing: scheme %s signs the URL that the sender was given", s.Scheme.Name)
	}
}

func (p *parser) schemeFile(n *yaml.Node, name string) *signature.Scheme {
	src, err := p.inDir(name)
	if err != nil {
		p.flaw(n, "read the scheme: %v", err)
		return nil
	}
	other := &parser{folder: p.folder, root: p.root, file: name, seen: p.seen}
	defer func() { p.errs = append(p.errs, other.errs...) }()
	root := other.document(src, "a scheme is fields with values, such as name: acme")
	if root == nil {
		return nil
	}
	return other.schemeOf(root)
}

// schemeOf reads a scheme from YAML. It goes by way of JSON, whose reader refuses unknown fields.
func (p *parser) schemeOf(n *yaml.Node) *signature.Scheme {
	var tree any
	if !p.wholesome(n) {
		return nil
	}
	if err := n.Decode(&tree); err != nil {
		p.errs = append(p.errs, syntax(p.file, err))
		return nil
	}
	text, err := json.Marshal(tree)
	if err != nil {
		p.flaw(n, "the scheme: %v", err)
		return nil
	}
	s, err := signature.ParseScheme(text)
	if err != nil {
		p.flaw(n, "%v", err)
		return nil
	}
	return s
}

// keys reads the secrets in the scheme's form.
func (p *parser) keys(s *spec, at func(string) *yaml.Node) {
	if s.Scheme == nil {
		if len(s.secrets) > 0 {
			p.flaw(at("secrets"), "there are secrets and verify: none: one of them")
		}
		return
	}
	if len(s.secrets) == 0 {
		p.flaw(at("scheme"), "secrets is missing: such as secrets: [env:STRIPE_SECRET]")
	}
	for _, sec := range s.secrets {
		if sec.text == "" { // only where that is no flaw
			s.Secrets = append(s.Secrets, sec.from+" (not set)")
			continue
		}
		k, err := s.Scheme.ParseKey(sec.text)
		if err != nil {
			p.flaw(sec.node, "the secret: %v", err)
			continue
		}
		s.Keys, s.Secrets = append(s.Keys, k.Until(sec.until)), append(s.Secrets, sec.from)
	}
	for _, sec := range s.tokens {
		if sec.text == "" {
			continue
		}
		s.Tokens = append(s.Tokens, signature.Token(sec.text).Until(sec.until))
	}
}

// identity says how repeats are told: as the scheme does, with what the source says otherwise.
func (p *parser) identity(s *spec) {
	s.identity = &signature.Scheme{}
	if s.Scheme != nil {
		s.identity.Dedupe = s.Scheme.Dedupe
		s.identity.Signature.Headers, s.identity.ID = s.Scheme.Signature.Headers, s.Scheme.ID // which id is the signed one
	}
	d := &s.identity.Dedupe
	if s.dedupe == nil {
		return
	}
	p.mapping(s.dedupe, "dedupe is fields with values, such as window: 72h", func(k, v *yaml.Node) {
		switch k.Value {
		case "window":
			d.Window = signature.Duration(p.duration(k, v))
		case "body_window":
			d.BodyWindow = signature.Duration(p.duration(k, v))
		case "body":
			d.Body = p.truth(k, v)
		case "header":
			d.Headers, d.JSON, d.Form = []string{p.text(k, v)}, nil, ""
		case "json":
			d.Headers, d.JSON, d.Form = nil, []string{p.text(k, v)}, ""
		case "form":
			d.Headers, d.JSON, d.Form = nil, nil, p.text(k, v)
		default:
			p.flaw(k, "unknown field %q: allowed are window, body_window, body, header, json, form", clip(k.Value))
		}
	})
}
