package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/millrace/millrace/service"
)

// configFile is what one file says, as it says it: nothing is resolved, so that a context that nobody chose may name a
// variable that nobody set.
type configFile struct {
	path     string
	fields   []field // settings that hold where no context is chosen
	readOnly *bool
	chosen   string // the context of a project
	contexts []cliContext
}

// field is a setting by the name of its flag.
type field struct {
	key, value string
	line       int
}

// cliContext is a named cluster: how it is reached, and what the command must not do there.
type cliContext struct {
	name, file string
	line       int
	fields     []field
	readOnly   bool   // nothing is ever written
	production bool   // who writes types the name
	clusterID  string // refused when the cluster has another
	color      string
}

// value is what a field of the context says, "" if nothing.
func (c *cliContext) value(key string) string {
	for _, f := range c.fields {
		if f.key == key {
			return f.value
		}
	}
	return ""
}

// maxConfig bounds a settings file, in bytes: a project's file comes from a repository that others write to.
const maxConfig = 64 << 10

// secretFields are the settings that are a secret themselves. In a file they are references: env:NAME or file:PATH.
var secretFields = []string{"sasl-password", "registry-password"}

// pathFields are the settings that name a file: in a settings file they are seen from its folder. The second list is
// of those that hold a secret.
var (
	pathFields       = []string{"tls-ca", "tls-cert", "tls-key", "sasl-password-file", "sasl-token-file", "registry-password-file"}
	secretPathFields = []string{"tls-key", "sasl-password-file", "sasl-token-file", "registry-password-file"}
)

// readConfig reads a settings file. Its keys are the names of the flags; contexts are settings under a name:
//
//	brokers: [kafka1:9093, kafka2:9093]
//	read-only: true
//	context: staging
//	contexts:
//	  staging:
//	    brokers: staging:9093
//	    sasl-user: orders
//	    sasl-password: env:STAGING_PASSWORD
//	    clusterID: q1Sh-9_ISia_zwGINzRvyQ
//	    readOnly: true
//
// An error names the file and the line.
func readConfig(path string) (*configFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	defer func() { _ = f.Close() }() // it was read only
	src, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read settings: %w", err)
	case len(src) > maxConfig:
		return nil, fmt.Errorf("%s: the file is larger than %d KiB", path, maxConfig>>10)
	}
	return parseConfig(path, src)
}

func parseConfig(path string, src []byte) (*configFile, error) {
	c := &configFile{path: path}
	var doc yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(src)).Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(doc.Content) == 0 {
		return c, nil
	}
	err := c.mapping(doc.Content[0], "settings are written like brokers: localhost:9092, one a line", func(key, value *yaml.Node) error {
		switch key.Value {
		case "contexts":
			return c.mapping(value, "contexts are names, with settings below each", func(name, body *yaml.Node) error {
				return c.context(name, body)
			})
		case "context":
			if filepath.Base(path) != projectFile {
				return c.fault(key, "context: chooses for a project, in %s; for yourself type  millrace context use NAME", projectFile)
			}
			return c.text(key, value, &c.chosen)
		case "read-only", "readOnly":
			c.readOnly = new(bool)
			return c.boolean(key, value, c.readOnly)
		default:
			return c.setting(&c.fields, key, value)
		}
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (c *configFile) context(name, body *yaml.Node) error {
	if !contextName(name.Value) {
		return c.fault(name, "%q is no name of a context: 1 to 64 of A-Z a-z 0-9 . _ -", name.Value)
	}
	ctx := cliContext{name: name.Value, file: c.path, line: name.Line}
	err := c.mapping(body, "a context is settings, such as brokers: localhost:9092", func(key, value *yaml.Node) error {
		switch key.Value {
		case "readOnly", "read-only":
			return c.boolean(key, value, &ctx.readOnly)
		case "production":
			return c.boolean(key, value, &ctx.production)
		case "clusterID", "cluster-id":
			return c.text(key, value, &ctx.clusterID)
		case "color":
			if err := c.text(key, value, &ctx.color); err != nil {
				return err
			}
			if _, known := colors[ctx.color]; !known {
				return c.fault(value, "color %q: allowed are blue, cyan, green, magenta, red, yellow", ctx.color)
			}
			return nil
		default:
			return c.setting(&ctx.fields, key, value)
		}
	})
	if err != nil {
		return err
	}
	if ctx.value("brokers") == "" {
		return c.fault(name, "context %s names no cluster: add  brokers: host:port", ctx.name)
	}
	c.contexts = append(c.contexts, ctx)
	return nil
}

func contextName(s string) bool {
	return s != "" && len(s) <= 64 && !strings.HasPrefix(s, "-") && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}

// setting checks one setting and keeps it.
func (c *configFile) setting(to *[]field, key, value *yaml.Node) error {
	text, ok := scalar(value)
	if !ok {
		return c.fault(value, "%s is a value, or a list of values", key.Value)
	}
	if slices.Contains(secretFields, key.Value) {
		if from, _, ok := reference(text); !ok || from == "" { // the text may be the secret: it is not printed
			return c.fault(value, "%s is written as env:NAME or file:PATH: a file that is shared holds no secret", key.Value)
		}
	} else if err := new(service.Settings).Set(key.Value, text); err != nil {
		return c.fault(key, "%w", err)
	}
	if key.Value == "registry" {
		for u := range strings.SplitSeq(text, ",") {
			if parsed, err := url.Parse(strings.TrimSpace(u)); err != nil || parsed.User != nil {
				return c.fault(value, "registry is a URL without a login: write registry-user, and registry-password: env:NAME")
			}
		}
	}
	*to = append(*to, field{key.Value, text, key.Line})
	return nil
}

// reference splits env:NAME and file:PATH.
func reference(text string) (from, name string, ok bool) {
	from, name, ok = strings.Cut(text, ":")
	return from, name, ok && name != "" && (from == "env" || from == "file")
}

// fault is an error at a node. An error among args that %w wraps stays findable.
func (c *configFile) fault(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", c.path, n.Line, fmt.Errorf(format, args...))
}

func (c *configFile) mapping(n *yaml.Node, shape string, each func(key, value *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return c.fault(n, "%s", shape)
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if line, twice := lines[key.Value]; twice {
			return c.fault(key, "%s is said twice: also in line %d", key.Value, line)
		}
		lines[key.Value] = key.Line
		if err := each(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (c *configFile) text(key, value *yaml.Node, to *string) error {
	text, ok := scalar(value)
	if !ok || value.Kind != yaml.ScalarNode || text == "" {
		return c.fault(value, "%s is one value", key.Value)
	}
	*to = text
	return nil
}

func (c *configFile) boolean(key, value *yaml.Node, to *bool) error {
	text, _ := scalar(value)
	on, err := strconv.ParseBool(text)
	if err != nil {
		return c.fault(value, "%s is true or false, not %q", key.Value, text)
	}
	*to = on
	return nil
}

// scalar is a value as a flag would have it: a list is joined by commas.
func scalar(n *yaml.Node) (string, bool) {
	switch n.Kind {
	case yaml.ScalarNode:
		return n.Value, n.Tag != "!!null"
	case yaml.SequenceNode:
		var words []string
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				return "", false
			}
			words = append(words, item.Value)
		}
		return strings.Join(words, ","), true
	default:
		return "", false
	}
}

// resolve is what a setting's flag would be given: a path seen from the file's folder, and a secret's own text under
// the name of its setting. getenv answers env:NAME.
func (f field) resolve(file string, getenv func(string) string) (key, value string, err error) {
	key, value = f.key, f.value
	var path string
	switch from, name, _ := reference(value); {
	case slices.Contains(secretFields, key) && from == "env":
		if value = getenv(name); value == "" {
			return "", "", usage(fmt.Errorf("%s:%d: the variable %s, which holds %s, is not set", file, f.line, name, key))
		}
		return key, value, nil
	case slices.Contains(secretFields, key):
		path = name
	case slices.Contains(pathFields, key):
		path = value
	default:
		return key, value, nil
	}
	path = beside(file, path, getenv)
	if slices.Contains(secretFields, key) || slices.Contains(secretPathFields, key) {
		if err := private(path); err != nil {
			return "", "", fmt.Errorf("%s:%d: %s: %w", file, f.line, key, err)
		}
	}
	setting, isPassword := strings.CutSuffix(key, "-password-file")
	if !isPassword && !slices.Contains(secretFields, key) {
		return key, path, nil
	}
	// A password is read here, so that one in a variable wins, as every variable wins over a file.
	src, err := os.ReadFile(path)
	if err != nil {
		return "", "", usage(fmt.Errorf("%s:%d: %s: %w", file, f.line, key, err))
	}
	if isPassword {
		key = setting + "-password"
	}
	return key, strings.TrimRight(string(src), "\r\n"), nil
}

// beside is a path seen from the folder of file; ~/ is the home folder.
func beside(file, path string, getenv func(string) string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok && getenv("HOME") != "" {
		return filepath.Join(getenv("HOME"), rest)
	}
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}

// private refuses a file with a secret that everybody on the machine can read. One that is not there is for its
// reader to report.
func private(path string) error {
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS == "windows" || info.Mode().Perm()&0o004 == 0 {
		return nil //nolint:nilerr // see above
	}
	return hint(refused(fmt.Errorf("everybody on this machine can read %s, which holds a secret", path)), "chmod 600 "+path)
}
