package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// projectFile holds a project's settings; it is looked for from the working directory up to the root of the git
// repository. userFile, in the user's configuration directory, holds what it leaves out.
const (
	projectFile = ".millrace.yaml"
	userFile    = "millrace/config.yaml"
)

// load sets the settings from the files and the environment, the weakest first, so that the flags, which are parsed
// later, win over the environment, that over the project's file, and that over the user's.
func (a *app) load() error {
	for _, file := range []string{a.userConfig(), a.projectConfig()} {
		if file == "" {
			continue
		}
		if err := a.loadFile(file); err != nil {
			return usage(err)
		}
	}
	if err := a.settings.FromEnv(a.getenv); err != nil {
		return usage(err)
	}
	if v := a.getenv("MILLRACE_READ_ONLY"); v != "" {
		on, err := strconv.ParseBool(v)
		if err != nil {
			return usage(fmt.Errorf("MILLRACE_READ_ONLY: %q is neither true nor false", v))
		}
		a.readOnly = on
	}
	return nil
}

// projectConfig is the nearest project file, "" if there is none.
func (a *app) projectConfig() string {
	dir, err := filepath.Abs(a.dir)
	if err != nil {
		return ""
	}
	for {
		file := filepath.Join(dir, projectFile)
		if _, err := os.Stat(file); err == nil {
			return file
		}
		parent := filepath.Dir(dir)
		if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil || parent == dir {
			return ""
		}
		dir = parent
	}
}

// userConfig is the user's file, "" if there is none.
func (a *app) userConfig() string {
	dir := a.getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home := a.getenv("HOME")
		if home == "" {
			return ""
		}
		dir = filepath.Join(home, ".config")
	}
	file := filepath.Join(dir, userFile)
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return file
}

// loadFile sets what a file says. Its keys are the names of the flags:
//
//	brokers: [kafka1:9093, kafka2:9093]
//	registry: https://registry.example.com
//	sasl-user: orders
//	read-only: true
func (a *app) loadFile(file string) error {
	const most = 64 << 10
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	defer func() { _ = f.Close() }()
	src, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	if len(src) > most {
		return fmt.Errorf("%s: the file is larger than %d KiB", file, most>>10)
	}
	var doc yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(src)).Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", file, err)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	fields := doc.Content[0]
	if fields.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: settings are written like brokers: localhost:9092, one a line", file, fields.Line)
	}
	for i := 0; i+1 < len(fields.Content); i += 2 {
		key, value := fields.Content[i], fields.Content[i+1]
		text, ok := scalar(value)
		if !ok {
			return fmt.Errorf("%s:%d: %s is a value, or a list of values", file, value.Line, key.Value)
		}
		if key.Value == "read-only" {
			if a.readOnly, err = strconv.ParseBool(text); err != nil {
				return fmt.Errorf("%s:%d: read-only is true or false, not %q", file, value.Line, text)
			}
			continue
		}
		if err := a.settings.Set(key.Value, text); err != nil {
			return fmt.Errorf("%s:%d: %w", file, key.Line, err)
		}
	}
	return nil
}

// scalar is a value as a flag would have it: a list is joined by commas.
func scalar(n *yaml.Node) (string, bool) {
	switch n.Kind {
	case yaml.ScalarNode:
		return n.Value, true
	case yaml.SequenceNode:
		var b bytes.Buffer
		for i, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				return "", false
			}
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(item.Value)
		}
		return b.String(), true
	default:
		return "", false
	}
}
