package service_test

import (
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/secret"
	"github.com/millrace/millrace/service"
)

func env(pairs ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1]
			}
		}
		return ""
	}
}

func flags(t *testing.T, s *service.Settings, args ...string) error {
	t.Helper()
	fs := flag.NewFlagSet("test", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	s.Register(fs)
	return fs.Parse(args)
}

func TestFlagsWinOverVariablesAndVariablesOverAFile(t *testing.T) {
	t.Parallel()
	var s service.Settings
	for name, value := range map[string]string{"brokers": "file:1", "client-id": "file", "log-level": "warn"} {
		if err := s.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.FromEnv(env("MILLRACE_BROKERS", "env:1, env:2,", "MILLRACE_CLIENT_ID", "env", "MILLRACE_TLS", "yes")); err != nil {
		t.Fatal(err)
	}
	if err := flags(t, &s, "--brokers=flag:1,flag:2"); err != nil {
		t.Fatal(err)
	}
	if got, want := s.Brokers, []string{"flag:1", "flag:2"}; !slices.Equal(got, want) {
		t.Errorf("brokers are %v, want %v", got, want)
	}
	if s.ClientID != "env" || s.LogLevel != "warn" || !s.TLS {
		t.Errorf("got client id %q, log level %q, tls %v", s.ClientID, s.LogLevel, s.TLS)
	}
	c, err := s.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(c.Seeds, s.Brokers) || c.ClientID != "env" || c.TLS == nil {
		t.Errorf("the cluster is %+v", c)
	}
}

func TestEverySettingHasAFlagButPasswords(t *testing.T) {
	t.Parallel()
	var s service.Settings
	fs := flag.NewFlagSet("test", flag.ContinueOnError)
	s.Register(fs)
	n := 0
	fs.VisitAll(func(f *flag.Flag) {
		n++
		if !strings.Contains(f.Usage, service.Env(f.Name)) {
			t.Errorf("the usage of --%s does not name %s: %s", f.Name, service.Env(f.Name), f.Usage)
		}
		if strings.HasSuffix(f.Name, "password") {
			t.Errorf("--%s would show in the process list", f.Name)
		}
	})
	if n < 15 {
		t.Errorf("%d flags", n)
	}
}

func TestErrorsNameTheFlagAndTheVariable(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing.pem")
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		env  []string
		want []string
	}{
		{"no broker", nil, []string{"--brokers", "MILLRACE_BROKERS", "localhost:9092"}},
		{"no file", []string{"MILLRACE_TLS_CA", missing}, []string{"--tls-ca", "MILLRACE_TLS_CA", missing}},
		{"no certificate in it", []string{"MILLRACE_TLS_CA", empty}, []string{"--tls-ca", empty}},
		{"half of a pair", []string{"MILLRACE_TLS_CERT", empty}, []string{"--tls-key", "MILLRACE_TLS_KEY"}},
		{"unknown mechanism", []string{"MILLRACE_SASL_MECHANISM", "GSSAPI", "MILLRACE_SASL_USER", "u"}, []string{"--sasl-mechanism", "GSSAPI", "SCRAM-SHA-512"}},
		{"a user without a password", []string{"MILLRACE_SASL_USER", "u"}, []string{"MILLRACE_SASL_PASSWORD", "--sasl-password-file"}},
		{"a mechanism without a user", []string{"MILLRACE_SASL_MECHANISM", "plain"}, []string{"--sasl-user", "PLAIN"}},
		{"no token", []string{"MILLRACE_SASL_MECHANISM", "OAUTHBEARER"}, []string{"--sasl-token-file"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var s service.Settings
			if tt.env != nil {
				tt.env = append(tt.env, "MILLRACE_BROKERS", "b:1")
			}
			if err := s.FromEnv(env(tt.env...)); err != nil {
				t.Fatal(err)
			}
			_, err := s.Cluster()
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not name %s: %v", want, err)
				}
			}
		})
	}
}

func TestAPasswordIsReadFromItsFileAndNeverPrinted(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("hunter2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var s service.Settings
	if err := s.FromEnv(env("MILLRACE_BROKERS", "b:1", "MILLRACE_SASL_USER", "orders", "MILLRACE_SASL_PASSWORD_FILE", file)); err != nil {
		t.Fatal(err)
	}
	c, err := s.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	if text := c.Auth.String(); strings.Contains(text, "hunter2") || !strings.Contains(text, "orders") || !strings.Contains(text, "SCRAM-SHA-512") {
		t.Errorf("the login prints as %s", text)
	}
}

func TestAVariableThatDoesNotReadIsNamed(t *testing.T) {
	t.Parallel()
	var s service.Settings
	err := s.FromEnv(env("MILLRACE_TLS", "perhaps"))
	if err == nil || !strings.Contains(err.Error(), "MILLRACE_TLS") || !strings.Contains(err.Error(), "perhaps") {
		t.Errorf("got %v", err)
	}
	if err := s.Set("no-such", "x"); err == nil {
		t.Error("an unknown setting is accepted")
	}
	if err := flags(t, &s, "--tls=maybe"); err == nil {
		t.Error("an unreadable flag is accepted")
	}
}

// One program hands its settings to another's service as variables: all of them, secrets too, as they are by then.
func TestSettingsAreHandedOnAsVariables(t *testing.T) {
	t.Parallel()
	given := map[string]string{
		"MILLRACE_BROKERS": "a:9092,b:9092", "MILLRACE_TLS": "true", "MILLRACE_SASL_USER": "u", "MILLRACE_SASL_PASSWORD": "p", "MILLRACE_LOG_LEVEL": "warn",
	}
	var first, second service.Settings
	if err := first.FromEnv(func(name string) string { return given[name] }); err != nil {
		t.Fatal(err)
	}
	if err := second.FromEnv(first.Getenv); err != nil {
		t.Fatal(err)
	}
	if got := second.SASLPassword.Reveal(); got != "p" {
		t.Errorf("the password is %q", got)
	}
	second.SASLPassword, first.SASLPassword = secret.String{}, secret.String{}
	if !reflect.DeepEqual(first, second) {
		t.Errorf("got %+v, want %+v", second, first)
	}
	if got := first.Getenv("PATH"); got != "" {
		t.Errorf("PATH is %q", got)
	}
}
