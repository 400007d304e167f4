// Package millrace_test holds the rules that concern the whole tree.
package millrace_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/millrace/millrace/"

// layers is the architecture: lowest first, a package imports only from layers above its own line, and siblings
// do not know each other. A package that is not listed fails. Change it in a commit of its own, with the reason.
var layers = []struct {
	name     string
	packages []string
}{
	{"words", []string{"event", "position", "signature", "internal/secret", "internal/verdict"}},
	{"reach", []string{"kafka", "internal/wire", "internal/web", "internal/dial"}},
	{"meaning", []string{"schemas", "cursor"}},
	{"movers", []string{"topics", "producer", "reader", "internal/filter"}},
	{"running", []string{"deadletter", "internal/engine"}},
	{"handling", []string{"consumer"}},
	{"acts", []string{"groups"}},
	{"edges", []string{"sink", "internal/registry", "replay", "internal/gateway"}},
	{"adapters", []string{"sink/parquetsink", "sink/pgsink", "sink/sqlitesink", "sink/sinktest"}},
	{"onlookers", []string{"internal/devbroker", "metrics"}},
	{"wiring", []string{"service", "millracetest"}},
	{"beside", []string{"internal/kafkatest", "internal/pgtest", "internal/ledger", "internal/devbroker/soak", "examples/shop", "examples/flights"}},
	{"tops", []string{"cmd/millrace", "internal/kafkatest/kafka", "internal/pgtest/postgres", "bench", "test/tiers", "test/integration", "test/cluster", "test/soak"}},
}

// homes says where a third-party module may be imported. Tests may import what they like, and so may what lies
// beside the product. A module without a home fails.
var homes = map[string][]string{
	"github.com/twmb/franz-go/pkg/kgo": {
		"kafka", "internal/wire", "cursor", "topics", "producer", "reader", "deadletter", "internal/engine", "consumer",
		"groups", "internal/registry", "replay", "metrics", "service", "cmd/millrace",
	},
	"github.com/twmb/franz-go/pkg/kadm": {
		"kafka", "cursor", "topics", "producer", "reader", "deadletter", "internal/engine", "consumer",
		"groups", "internal/registry", "replay", "cmd/millrace",
	},
	"github.com/twmb/franz-go/pkg/kerr": {
		"kafka", "cursor", "topics", "producer", "reader", "deadletter", "internal/engine", "consumer",
		"groups", "internal/registry", "replay", "internal/devbroker", "cmd/millrace",
	},
	"github.com/twmb/franz-go/pkg/kmsg": {
		"kafka", "cursor", "topics", "producer", "reader", "internal/engine", "groups", "internal/devbroker", "cmd/millrace",
	},
	"github.com/twmb/franz-go/pkg/sasl":     {"kafka"},
	"github.com/twmb/franz-go/pkg/kversion": {"kafka"},
	"github.com/twmb/franz-go/pkg/sr":       {"schemas"},
	"github.com/twmb/franz-go/pkg/kfake":    {"internal/devbroker"},
	"github.com/twmb/franz-go/plugin/kzap":  {"kafka"},
	"github.com/twmb/franz-go/plugin/kprom": {"metrics"},
	"github.com/twmb/franz-go/plugin/kotel": {"metrics"},
	"github.com/prometheus/client_golang":   {"metrics"},
	"go.opentelemetry.io/otel":              {"metrics"},
	"cel.dev/cel-go":                        {"internal/filter"},
	"github.com/twmb/avro":                  {"schemas"},
	"github.com/linkedin/goavro/v2":         {"schemas"},
	"github.com/jackc/pgx/v5":               {"sink/pgsink", "cmd/millrace"},
	"modernc.org/sqlite":                    {"sink/sqlitesink", "cmd/millrace"},
	"github.com/parquet-go/parquet-go":      {"sink/parquetsink"},
	"golang.org/x/sync":                     {"schemas"},
	"golang.org/x/sys":                      {"internal/devbroker"},
	"golang.org/x/term":                     {"cmd/millrace"},
	"github.com/spf13/cobra":                {"cmd/millrace"},
	"github.com/spf13/pflag":                {"cmd/millrace"},
	"github.com/goccy/go-yaml":              {"topics", "cmd/millrace"},
	"go.yaml.in/yaml/v3":                    {"topics", "internal/gateway", "cmd/millrace"},
	"go.uber.org/zap":                       {"*"},
}

func TestLayers(t *testing.T) {
	t.Parallel()
	level := map[string]int{}
	for i, l := range layers {
		for _, p := range l.packages {
			level[p] = i
		}
	}
	seen := map[string]bool{}
	for _, f := range goFiles(t) {
		pkg := path.Dir(f.path)
		own, listed := level[pkg]
		if pkg == "." {
			continue
		}
		if !listed {
			t.Errorf("%s: package %s is in no layer of deps_test.go: give it a line", f.path, pkg)
			continue
		}
		seen[pkg] = true
		for _, imp := range f.imports {
			if f.test && !strings.HasPrefix(imp, module) {
				continue
			}
			if err := allowed(pkg, imp, own, level, f.test); err != nil {
				t.Errorf("%s: %v", f.path, err)
			}
		}
	}
	for pkg := range level {
		if !seen[pkg] {
			t.Errorf("package %s is listed in deps_test.go and does not exist: remove the line", pkg)
		}
	}
}

func allowed(pkg, imp string, own int, level map[string]int, test bool) error {
	name, ours := strings.CutPrefix(imp, module)
	switch {
	case ours && (name == pkg || test):
		return nil // a test may look up: its package is compiled for the test alone
	case ours:
		other, ok := level[name]
		if !ok {
			return fmt.Errorf("import of %s, which is in no layer", name)
		}
		if other >= own {
			return fmt.Errorf("%s (%s) imports %s (%s): a package imports only lower layers", pkg, layers[own].name, name, layers[other].name)
		}
		return nil
	case !strings.Contains(strings.Split(imp, "/")[0], "."):
		if layers[own].name == "words" && slices.Contains([]string{"net/http", "database/sql"}, imp) {
			return fmt.Errorf("%s imports %s: words import nothing that reaches out", pkg, imp)
		}
		return nil
	case layers[own].name == "beside" || layers[own].name == "tops" && pkg != "cmd/millrace" || layers[own].name == "wiring":
		return nil
	}
	for home, packages := range homes {
		if imp == home || strings.HasPrefix(imp, home+"/") {
			if slices.Contains(packages, pkg) || packages[0] == "*" {
				return nil
			}
			return fmt.Errorf("%s imports %s, whose homes are %v", pkg, imp, packages)
		}
	}
	return fmt.Errorf("%s imports %s, which has no home in deps_test.go", pkg, imp)
}

type goFile struct {
	path    string // relative, with slashes
	imports []string
	test    bool
}

func goFiles(t *testing.T) []goFile {
	t.Helper()
	var files []goFile
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); p != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "tools") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, src, parser.ImportsOnly)
		if err != nil {
			return err
		}
		g := goFile{path: filepath.ToSlash(p), test: strings.HasSuffix(p, "_test.go")}
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			g.imports = append(g.imports, imp)
		}
		files = append(files, g)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
