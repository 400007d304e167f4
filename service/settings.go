package service

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/millrace/millrace/internal/secret"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/schemas"
)

// Settings say where the cluster and the registry are, who we are there, and how to log. A service and the
// millrace command read them from the same flags and variables: the flag --tls-ca is the variable
// MILLRACE_TLS_CA.
//
// The last writer wins, so the precedence "flags, then variables, then a file, then defaults" is a matter of
// order: [Settings.Set] what the file says, then [Settings.FromEnv], then parse the flags of [Settings.Register].
// The zero value is every default.
type Settings struct {
	Brokers       []string // host:port of some brokers; the rest of the cluster is found through them
	ClientID      string   // shows in the brokers' logs and quotas. Defaults to the program's choice
	TLS           bool     // encrypts; true as well when one of the four below is set
	TLSCA         string   // a PEM file of the authorities to trust. Defaults to the system's
	TLSCert       string   // a PEM file of our certificate, for mutual TLS; with TLSKey
	TLSKey        string   // a PEM file of our key
	TLSServerName string   // the name that the brokers' certificates must carry. Defaults to the host dialed
	SASLMechanism string   // PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER. Defaults to none, or SCRAM-SHA-512 with a user
	SASLUser      string

	SASLPassword     secret.String // a variable, never a flag: flags show in the process list
	SASLPasswordFile string        // a file that holds the password; a newline at its end is cut
	SASLTokenFile    string        // for OAUTHBEARER: a file that holds the token, read again for every login

	RegistryURLs         []string // base URLs of one schema registry, tried in order
	RegistryUser         string
	RegistryPassword     secret.String // a variable, never a flag
	RegistryPasswordFile string

	LogLevel  string // debug, info, warn or error. Defaults to info
	LogFormat string // text or json. Defaults to text
}

// setting ties a field to its flag and variable.
type setting struct {
	flag   string
	usage  string
	bool   bool
	secret bool // no flag
	get    func() string
	set    func(string) error
}

// Env is the variable of a flag: MILLRACE_TLS_CA for tls-ca.
func Env(flagName string) string {
	return "MILLRACE_" + strings.ToUpper(strings.ReplaceAll(flagName, "-", "_"))
}

// table is every setting, in the order that help shows them.
func (s *Settings) table() []setting {
	return []setting{
		list("brokers", "some brokers, `host:port,…`", &s.Brokers),
		list("registry", "the schema registry, `URL,…`", &s.RegistryURLs),
		text("client-id", "the `name` that shows in the brokers' logs and quotas", &s.ClientID),
		{
			flag: "tls", usage: "encrypt connections to the brokers", bool: true,
			get: func() string { return fmt.Sprint(s.TLS) },
			set: func(v string) (err error) { s.TLS, err = parseBool(v); return err },
		},
		text("tls-ca", "trust the authorities in this PEM `file`, for brokers and registry", &s.TLSCA),
		text("tls-cert", "our certificate, a PEM `file`", &s.TLSCert),
		text("tls-key", "the key of our certificate, a PEM `file`", &s.TLSKey),
		text("tls-server-name", "the `name` the brokers' certificates must carry", &s.TLSServerName),
		text("sasl-mechanism", "`mechanism`: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER; SCRAM-SHA-512 when there is a user", &s.SASLMechanism),
		text("sasl-user", "log in to the brokers as this `user`", &s.SASLUser),
		hidden("sasl-password", &s.SASLPassword),
		text("sasl-password-file", "a `file` that holds the password (or set "+Env("sasl-password")+")", &s.SASLPasswordFile),
		text("sasl-token-file", "a `file` that holds the OAuth token, read at every login", &s.SASLTokenFile),
		text("registry-user", "log in to the registry as this `user`", &s.RegistryUser),
		hidden("registry-password", &s.RegistryPassword),
		text("registry-password-file", "a `file` that holds the password (or set "+Env("registry-password")+")", &s.RegistryPasswordFile),
		text("log-level", "`level`: debug, info, warn or error; info when it is not set", &s.LogLevel),
		text("log-format", "`format`: text or json; text when it is not set", &s.LogFormat),
	}
}

// Register defines a flag for every setting on fs, with what is set so far as defaults. For cobra, hand fs to
// pflag's AddGoFlagSet.
func (s *Settings) Register(fs *flag.FlagSet) {
	for _, x := range s.table() {
		if !x.secret {
			fs.Var(flagValue{x}, x.flag, x.usage+" ["+Env(x.flag)+"]")
		}
	}
}

// FromEnv sets every setting whose variable lookup knows; an empty answer is a variable that is not set.
func (s *Settings) FromEnv(lookup func(string) string) error {
	var errs []error
	for _, x := range s.table() {
		if v := lookup(Env(x.flag)); v != "" {
			if err := x.set(v); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", Env(x.flag), err))
			}
		}
	}
	return errors.Join(errs...)
}

// Getenv is the value of the setting with this variable, as the variable would have it; "" for one that is not set and for
// other variables. With it one program runs another's service with the settings that it has.
func (s *Settings) Getenv(variable string) string {
	for _, one := range s.table() {
		if Env(one.flag) == variable {
			return one.get()
		}
	}
	return ""
}

// Environ is every setting that is set, as NAME=value: the environment of a service that is to have the same.
func (s *Settings) Environ() []string {
	var out []string
	for _, one := range s.table() {
		if v := one.get(); v != "" {
			out = append(out, Env(one.flag)+"="+v)
		}
	}
	return out
}

// Set sets one setting by the name of its flag, as a file or a second pass over parsed flags does.
func (s *Settings) Set(flagName, value string) error {
	for _, x := range s.table() {
		if x.flag == flagName {
			if err := x.set(value); err != nil {
				return fmt.Errorf("%s: %w", flagName, err)
			}
			return nil
		}
	}
	return fmt.Errorf("there is no setting %q", flagName)
}

// Cluster returns the cluster the settings describe. Its Log is nil: set it. An error names the flag and the
// variable at fault. Nothing is dialed.
func (s *Settings) Cluster() (kafka.Cluster, error) {
	if len(s.Brokers) == 0 {
		return kafka.Cluster{}, fault("brokers", errors.New("not set: name a broker, for example localhost:9092"))
	}
	c := kafka.Cluster{Seeds: s.Brokers, ClientID: s.ClientID}
	if s.TLS || s.TLSCA != "" || s.TLSCert != "" || s.TLSKey != "" || s.TLSServerName != "" {
		conf, err := s.tls()
		if err != nil {
			return kafka.Cluster{}, err
		}
		c.TLS = conf
	}
	auth, err := s.auth()
	if err != nil {
		return kafka.Cluster{}, err
	}
	c.Auth = auth
	return c, nil
}

// Registry returns the schema registry the settings describe. An error names the flag and the variable at
// fault. Nothing is dialed.
func (s *Settings) Registry(log *zap.Logger) (*schemas.Registry, error) {
	if len(s.RegistryURLs) == 0 {
		return nil, fault("registry", errors.New("not set: name a schema registry, for example http://localhost:8081"))
	}
	cfg := schemas.Config{URLs: s.RegistryURLs, User: s.RegistryUser, Log: log}
	var err error
	if cfg.Password, err = password("registry", s.RegistryPassword, s.RegistryPasswordFile); err != nil {
		return nil, err
	}
	if s.TLSCA != "" {
		pool, err := authorities(s.TLSCA)
		if err != nil {
			return nil, err
		}
		cfg.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	r, err := schemas.New(cfg)
	if err != nil {
		return nil, fault("registry", err)
	}
	return r, nil
}

// Logger returns a logger that writes to out: lines for people, or one JSON object a line.
func (s *Settings) Logger(out zapcore.WriteSyncer) (*zap.Logger, error) {
	level := zapcore.InfoLevel
	if s.LogLevel != "" {
		var err error
		if level, err = zapcore.ParseLevel(s.LogLevel); err != nil {
			return nil, fault("log-level", fmt.Errorf("%q is none of debug, info, warn, error", s.LogLevel))
		}
	}
	conf := zap.NewProductionEncoderConfig()
	conf.EncodeTime = zapcore.ISO8601TimeEncoder
	var enc zapcore.Encoder
	switch s.LogFormat {
	case "", "text":
		conf.EncodeLevel = zapcore.CapitalLevelEncoder
		enc = zapcore.NewConsoleEncoder(conf)
	case "json":
		enc = zapcore.NewJSONEncoder(conf)
	default:
		return nil, fault("log-format", fmt.Errorf("%q is none of text, json", s.LogFormat))
	}
	return zap.New(zapcore.NewCore(enc, out, level)), nil
}

func (s *Settings) tls() (*tls.Config, error) {
	conf := &tls.Config{ServerName: s.TLSServerName, MinVersion: tls.VersionTLS12}
	if s.TLSCA != "" {
		pool, err := authorities(s.TLSCA)
		if err != nil {
			return nil, err
		}
		conf.RootCAs = pool
	}
	if (s.TLSCert == "") != (s.TLSKey == "") {
		missing := "tls-cert"
		if s.TLSKey == "" {
			missing = "tls-key"
		}
		return nil, fault(missing, errors.New("not set: a certificate and its key go together"))
	}
	if s.TLSCert != "" {
		pair, err := tls.LoadX509KeyPair(s.TLSCert, s.TLSKey)
		if err != nil {
			return nil, fault("tls-cert", fmt.Errorf("read the certificate and its key: %w", err))
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}

func (s *Settings) auth() (kafka.Auth, error) {
	mechanism := strings.ToUpper(s.SASLMechanism)
	switch {
	case mechanism == "" && s.SASLTokenFile != "":
		mechanism = "OAUTHBEARER"
	case mechanism == "" && s.SASLUser != "":
		mechanism = "SCRAM-SHA-512"
	case mechanism == "":
		return kafka.Auth{}, nil
	}
	if mechanism == "OAUTHBEARER" {
		file := s.SASLTokenFile
		if file == "" {
			return kafka.Auth{}, fault("sasl-token-file", errors.New("not set: OAUTHBEARER needs a token"))
		}
		return kafka.OAuth(func(context.Context) (string, error) {
			token, err := os.ReadFile(file)
			if err != nil {
				return "", fault("sasl-token-file", err)
			}
			return strings.TrimSpace(string(token)), nil
		}), nil
	}
	login, ok := map[string]func(user, password string) kafka.Auth{
		"PLAIN": kafka.Plain, "SCRAM-SHA-256": kafka.SCRAM256, "SCRAM-SHA-512": kafka.SCRAM512,
	}[mechanism]
	if !ok {
		return kafka.Auth{}, fault("sasl-mechanism", fmt.Errorf("%q is none of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER", s.SASLMechanism))
	}
	if s.SASLUser == "" {
		return kafka.Auth{}, fault("sasl-user", fmt.Errorf("not set: %s needs a user", mechanism))
	}
	pass, err := password("sasl", s.SASLPassword, s.SASLPasswordFile)
	if err != nil {
		return kafka.Auth{}, err
	}
	if pass.IsZero() {
		return kafka.Auth{}, fault("sasl-password-file", fmt.Errorf("not set: user %s needs a password, from the file or from %s", s.SASLUser, Env("sasl-password")))
	}
	return login(s.SASLUser, pass.Reveal()), nil
}

// fault says which flag and variable an error is about.
func fault(flagName string, err error) error {
	return fmt.Errorf("--%s (%s): %w", flagName, Env(flagName), err)
}

// password is direct, or what file holds. A file wins: it was named on purpose.
func password(of string, direct secret.String, file string) (secret.String, error) {
	if file == "" {
		return direct, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return secret.String{}, fault(of+"-password-file", err)
	}
	return secret.New(strings.TrimRight(string(b), "\r\n")), nil
}

func authorities(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fault("tls-ca", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fault("tls-ca", fmt.Errorf("%s holds no certificate in PEM form", file))
	}
	return pool, nil
}

func text(name, usage string, to *string) setting {
	return setting{
		flag: name, usage: usage,
		get: func() string { return *to },
		set: func(v string) error { *to = v; return nil },
	}
}

func hidden(name string, to *secret.String) setting {
	return setting{flag: name, secret: true, get: func() string { return to.Reveal() }, set: func(v string) error { *to = secret.New(v); return nil }}
}

func list(name, usage string, to *[]string) setting {
	return setting{
		flag: name, usage: usage,
		get: func() string { return strings.Join(*to, ",") },
		set: func(v string) error {
			parts := strings.Split(v, ",")
			for i := range parts {
				parts[i] = strings.TrimSpace(parts[i])
			}
			*to = slices.DeleteFunc(parts, func(p string) bool { return p == "" })
			return nil
		},
	}
}

func parseBool(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "1", "t", "true", "yes", "on":
		return true, nil
	case "0", "f", "false", "no", "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither true nor false", v)
}

// flagValue is a setting as a flag.Value.
type flagValue struct{ s setting }

// String implements [flag.Value]; the flag package calls it on the zero value too.
func (v flagValue) String() string {
	if v.s.get == nil {
		return ""
	}
	return v.s.get()
}

// Set implements [flag.Value].
func (v flagValue) Set(value string) error { return v.s.set(value) }

// IsBoolFlag lets --tls stand without a value.
func (v flagValue) IsBoolFlag() bool { return v.s.bool }
