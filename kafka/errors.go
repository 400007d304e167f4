package kafka

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// PermissionError is a refusal by the cluster's authorizer. errors.Is finds the cluster's own error in it.
type PermissionError struct {
	// Principal is who was refused, as ACLs name it: "User:shipping".
	Principal string
	// Operation is what was refused, in the words of ACLs: "Read", "Write", "Create", "Describe"…
	Operation string
	// Resource is on what: "topic shop.orders", "group shipping", "transactional id shipping-0", "cluster".
	Resource string

	cause error
}

// Error says who may not do what, and how to grant it.
func (e *PermissionError) Error() string {
	return fmt.Sprintf("%s has no %s permission on %s: grant it (kafka-acls.sh --add --allow-principal %s --operation %s %s)",
		e.Principal, e.Operation, e.Resource, e.Principal, e.Operation, aclFlags(e.Resource))
}

// Unwrap returns the cluster's own error.
func (e *PermissionError) Unwrap() error { return e.cause }

// aclFlags is resource as kafka-acls.sh takes it.
func aclFlags(resource string) string {
	for _, kind := range []string{kindTopic, kindGroup, kindTransaction} {
		if name, ok := strings.CutPrefix(resource, kind+" "); ok {
			return "--" + strings.ReplaceAll(kind, " ", "-") + " " + name
		}
	}
	switch resource {
	case kindTopic, kindGroup, kindTransaction:
		return "--" + strings.ReplaceAll(resource, " ", "-") + " NAME"
	}
	return "--" + kindCluster
}

// The kinds of resources, as [PermissionError] spells them.
const (
	kindTopic       = "topic"
	kindGroup       = "group"
	kindTransaction = "transactional id"
	kindCluster     = "cluster"
)

// denials are the authorizer's answers with the kind of resource that each is about, and the operation where the
// answer leaves no choice.
var denials = []struct {
	err  error
	kind string
}{
	{kerr.TopicAuthorizationFailed, kindTopic},
	{kerr.GroupAuthorizationFailed, kindGroup},
	{kerr.TransactionalIDAuthorizationFailed, kindTransaction},
	{kerr.ClusterAuthorizationFailed, kindCluster},
}

// Explain turns an error of a Kafka client into one that a person can act on, and returns every other error,
// nil too, as it is. operation and resources say what was tried: Explain(err, "Read", "topic shop.orders",
// "group shipping"); where there are several resources, the cluster's answer picks the one it is about.
//
//   - The authorizer's refusals become a [*PermissionError].
//   - A failed login says which mechanism and user were refused.
//   - TLS spoken to a plain-text port, plain text to a TLS port, and no login where one is needed say so; the
//     client itself only sees a closed connection or a length that makes no sense.
//
// In every case errors.Is and errors.As still find what Explain was given.
func (c Cluster) Explain(err error, operation string, resources ...string) error {
	if err == nil {
		return nil
	}
	if denied, ok := errors.AsType[*PermissionError](err); ok && denied != nil {
		return err
	}
	for _, d := range denials {
		if errors.Is(err, d.err) {
			kind := d.kind
			if kind == kindCluster && operation == "Write" {
				// A producer asks for its id first, which takes Write on any topic (since Kafka 2.8; before, a
				// right of the cluster): what it lacks is its topic's.
				kind = kindTopic
			}
			return &PermissionError{Principal: c.principal(), Operation: operation, Resource: pick(resources, kind), cause: err}
		}
	}
	if hint := c.hint(err); hint != "" {
		return &explained{hint, err}
	}
	return err
}

// pick returns the resource of the kind, or the kind alone where none was named.
func pick(resources []string, kind string) string {
	for _, r := range resources {
		if r == kind || strings.HasPrefix(r, kind+" ") {
			return r
		}
	}
	return kind
}

// principal is how the cluster's ACLs name us.
func (c Cluster) principal() string {
	switch {
	case c.Auth.user != "":
		return "User:" + c.Auth.user
	case !c.Auth.IsZero():
		return "User:TOKEN-SUBJECT" // only the broker reads the token
	case c.TLS != nil && len(c.TLS.Certificates) > 0 && len(c.TLS.Certificates[0].Certificate) > 0:
		if leaf, err := x509.ParseCertificate(c.TLS.Certificates[0].Certificate[0]); err == nil {
			return "User:" + leaf.Subject.String()
		}
	}
	return "User:ANONYMOUS"
}

// hint says what an error of connecting or logging in means, or nothing where we know no better than the error.
func (c Cluster) hint(err error) string {
	var (
		dns     *net.DNSError
		unknown x509.UnknownAuthorityError
		name    x509.HostnameError
		expired x509.CertificateInvalidError
		first   *kgo.ErrFirstReadEOF
		hello   *handshakeError
	)
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		return fmt.Sprintf("the login was refused (%s): check user, password and mechanism", c.Auth)
	case errors.Is(err, kerr.UnsupportedSaslMechanism):
		return fmt.Sprintf("the broker offers no %s here: check the mechanism and the port", c.Auth.mechanism)
	case errors.Is(err, kerr.IllegalSaslState) && c.Auth.IsZero():
		return "the broker asks for a login: set Auth"
	case errors.Is(err, kerr.IllegalSaslState):
		return "the broker takes no login on this port: unset Auth, or use the port for logins"
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Sprintf("there is no host %s: check the name", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there: is the broker running, and is the port right?"
	case errors.As(err, &unknown):
		return "the broker's certificate is signed by an authority we do not know: add its CA to TLS.RootCAs"
	case errors.As(err, &name):
		return "the broker's certificate is for another name: dial a name it holds, or set TLS.ServerName"
	case errors.As(err, &expired):
		return "the broker's certificate is not valid: " + expired.Error()
	case isAlert(err):
		return "the broker refused our side of TLS: does it want a client certificate (TLS.Certificates)?"
	case errors.As(err, &hello) && hello.meetsPlainText():
		return "the port speaks plain text and we speak TLS: unset TLS, or use the TLS port"
	case errors.As(err, &hello) && isTimeout(err):
		return "the TLS handshake got no answer: does the port speak TLS?"
	case c.TLS == nil && strings.Contains(err.Error(), "tls alert"): // the client's guess at the first bytes
		return "the port speaks TLS and we do not: set TLS"
	case errors.As(err, &first) && c.TLS == nil:
		return "the broker closed the connection at once: does the port speak TLS (set TLS), or ask for a login (set Auth)?"
	case errors.Is(err, io.EOF) && !c.Auth.IsZero():
		return fmt.Sprintf("the broker closed the connection: did it refuse the login (%s)?", c.Auth)
	case errors.Is(err, io.EOF):
		return "the broker closed the connection: does it ask for a login (set Auth)?"
	case isTimeout(err):
		return "no answer in time: is the address right, and is no firewall in between?"
	}
	return ""
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// handshakeError is a TLS handshake that did not come about.
type handshakeError struct{ err error }

func (e *handshakeError) Error() string { return "TLS handshake: " + e.err.Error() }
func (e *handshakeError) Unwrap() error { return e.err }

// isAlert reports whether err is a TLS alert of the other side: it can also come with the first read, after the
// handshake, when it is about our certificate.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// meetsPlainText reports whether the other side does not speak TLS: Kafka reads the greeting as a request of an
// absurd length and hangs up.
func (e *handshakeError) meetsPlainText() bool {
	var header tls.RecordHeaderError
	return errors.As(e.err, &header) || errors.Is(e.err, io.EOF) || errors.Is(e.err, syscall.ECONNRESET)
}

// explained is an error with what it means in front.
type explained struct {
	hint string
	err  error
}

func (e *explained) Error() string { return e.hint + " (" + e.err.Error() + ")" }
func (e *explained) Unwrap() error { return e.err }
