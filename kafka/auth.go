package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/millrace/millrace/internal/secret"
)

const (
	mechanismPlain    = "PLAIN"
	mechanismSCRAM256 = "SCRAM-SHA-256"
	mechanismSCRAM512 = "SCRAM-SHA-512"
	mechanismOAuth    = "OAUTHBEARER"
)

// Auth is a SASL mechanism with its credentials. In every format it prints its mechanism and user only. The zero
// value is no login.
type Auth struct {
	mechanism string
	user      string
	password  secret.String
	token     func(context.Context) (string, error)
}

// Plain logs in with SASL PLAIN, which sends the password itself: it is refused without TLS, except on loopback.
func Plain(user, password string) Auth {
	return Auth{mechanism: mechanismPlain, user: user, password: secret.New(password)}
}

// SCRAM256 logs in with SCRAM-SHA-256: the password never travels.
func SCRAM256(user, password string) Auth {
	return Auth{mechanism: mechanismSCRAM256, user: user, password: secret.New(password)}
}

// SCRAM512 logs in with SCRAM-SHA-512: the password never travels.
func SCRAM512(user, password string) Auth {
	return Auth{mechanism: mechanismSCRAM512, user: user, password: secret.New(password)}
}

// OAuth logs in with OAUTHBEARER. token is called for each connection, and again when the broker asks for a new
// login, so it should keep a token until shortly before it ends. Like PLAIN it is refused without TLS.
func OAuth(token func(context.Context) (string, error)) Auth {
	return Auth{mechanism: mechanismOAuth, token: token}
}

// IsZero reports whether there is no login.
func (a Auth) IsZero() bool { return a.mechanism == "" }

// String returns the mechanism and the user, "SCRAM-SHA-512 as orders", or "none".
func (a Auth) String() string {
	switch {
	case a.IsZero():
		return "none"
	case a.user == "":
		return a.mechanism
	}
	return a.mechanism + " as " + a.user
}

// Format writes [Auth.String] for every verb.
func (a Auth) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, a.String()) }

// MarshalText returns [Auth.String]: JSON, YAML and the encoders of logs end here.
func (a Auth) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// bare reports whether the mechanism sends the secret itself, for anyone on the way to read.
func (a Auth) bare() bool { return a.mechanism == mechanismPlain || a.mechanism == mechanismOAuth }

func (a Auth) validate() error {
	switch {
	case a.IsZero():
		return nil
	case a.mechanism == mechanismOAuth:
		if a.token == nil {
			return errors.New("OAUTHBEARER needs a token function")
		}
		return nil
	case a.user == "":
		return fmt.Errorf("%s needs a user", a.mechanism)
	case a.password.IsZero():
		return fmt.Errorf("%s needs a password for user %s", a.mechanism, a.user)
	}
	return nil
}

func (a Auth) sasl() sasl.Mechanism {
	switch a.mechanism {
	case mechanismPlain:
		return plain.Auth{User: a.user, Pass: a.password.Reveal()}.AsMechanism()
	case mechanismSCRAM256:
		return scram.Auth{User: a.user, Pass: a.password.Reveal()}.AsSha256Mechanism()
	case mechanismSCRAM512:
		return scram.Auth{User: a.user, Pass: a.password.Reveal()}.AsSha512Mechanism()
	default:
		return oauth.Oauth(func(ctx context.Context) (oauth.Auth, error) {
			token, err := a.token(ctx)
			if err != nil {
				return oauth.Auth{}, fmt.Errorf("fetch an OAuth token: %w", err)
			}
			return oauth.Auth{Token: token}, nil
		})
	}
}
