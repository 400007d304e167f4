package gateway_test

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/dial"
	"github.com/millrace/millrace/internal/gateway"
)

// loopbackDNS answers every question for an IPv4 address with 127.0.0.1.
func loopbackDNS() *net.Resolver {
	return &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			defer func() { _ = server.Close() }()
			for {
				var size [2]byte
				if _, err := io.ReadFull(server, size[:]); err != nil {
					return
				}
				query := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(server, query); err != nil {
					return
				}
				end := 12
				for query[end] != 0 {
					end += 1 + int(query[end])
				}
				end += 5
				answer := append(append([]byte{}, query[:2]...), 0x84, 0, 0, 1, 0, 0, 0, 0, 0, 0)
				answer = append(answer, query[12:end]...)
				if query[end-3] == 1 { // A
					answer[7] = 1
					answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1)
				}
				if _, err := server.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
					return
				}
			}
		}()
		return client, nil
	}}
}

// internet is what the senders' hosts and the authorities' are for a test: one server with TLS, one without. The guarded
// dialer looks names up, checks the address and verifies the host's certificate as ever; only the port is another, for
// 443 is not a test's to have.
type internet struct {
	tls, plain *httptest.Server
	roots      *x509.CertPool

	mu    sync.Mutex
	files map[string][]byte // by host and path with its query
	asked []string
}

func newInternet(t *testing.T, root *authority, hosts ...string) *internet {
	t.Helper()
	n := &internet{files: map[string][]byte{}, roots: x509.NewCertPool()}
	n.roots.AddCert(root.cert)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.Host)
		n.mu.Lock()
		defer n.mu.Unlock()
		n.asked = append(n.asked, r.Method+" "+host+r.URL.RequestURI())
		b, ok := n.files[host+r.URL.RequestURI()]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = w.Write(b)
	})
	key := root.issue(t, hosts[0], "").key
	template := &x509.Certificate{
		SerialNumber: root.cert.SerialNumber, DNSNames: hosts, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(nil, template, root.cert, &key.PublicKey, root.key)
	if err != nil {
		t.Fatal(err)
	}
	n.plain, n.tls = httptest.NewServer(handler), httptest.NewUnstartedServer(handler)
	n.tls.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	n.tls.StartTLS()
	t.Cleanup(n.plain.Close)
	t.Cleanup(n.tls.Close)
	return n
}

func (n *internet) ports() (encrypted, plain uint16) {
	return netip.MustParseAddrPort(n.tls.Listener.Addr().String()).Port(), netip.MustParseAddrPort(n.plain.Listener.Addr().String()).Port()
}

// client goes through the guarded dialer, whose operator allows some networks.
func (n *internet) client(plain bool, allow ...netip.Prefix) *http.Client {
	encrypted, open := n.ports()
	c := dial.Client(dial.Config{
		HTTP: plain, Ports: []uint16{encrypted, open}, Lists: dial.Lists{Allow: allow}, Resolver: loopbackDNS(),
		TLS: &tls.Config{RootCAs: n.roots, MinVersion: tls.VersionTLS12},
	})
	guarded := c.Transport
	c.Transport = answering(func(r *http.Request) (*http.Response, error) {
		port := encrypted
		if r.URL.Scheme == "http" {
			port = open
		}
		r = r.Clone(r.Context())
		r.URL.Host = fmt.Sprintf("%s:%d", r.URL.Hostname(), port)
		r.Host = ""
		return guarded.RoundTrip(r)
	})
	return c
}

func (n *internet) put(where string, what ...[]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.files[where] = []byte{}
	for _, w := range what {
		n.files[where] = append(n.files[where], w...)
	}
}

func (n *internet) count(what string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	found := 0
	for _, a := range n.asked {
		if a == what {
			found++
		}
	}
	return found
}

func inPEM(a *authority) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

var loopback = netip.MustParsePrefix("127.0.0.0/8")

// PayPal publishes its whole chain by https.
func TestPayPalsCertificateIsFetched(t *testing.T) {
	t.Parallel()
	root := (*authority)(nil).issue(t, "root", "")
	between := root.issue(t, "between", "")
	leaf := between.issue(t, "messageverificationcerts.paypal.com", "")
	n := newInternet(t, root, "api.paypal.com")
	n.put("api.paypal.com/v1/notifications/certs/CERT-1", inPEM(leaf), inPEM(between))
	const source, webhook = "scheme: paypal\nsecrets: [env:PAYPAL]\ntopic: webhooks.paypal\n", "1JE4291016473214C"
	post := func(l *lab, id string, key *authority) *http.Request {
		text, at := `{"id":"WH-`+id+`"}`, time.Now().UTC().Format(time.RFC3339)
		sum := sha256.Sum256(fmt.Appendf(nil, "%s|%s|%s|%d", id, at, webhook, crc32.ChecksumIEEE([]byte(text))))
		raw, err := key.key.Sign(nil, sum[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		l.env["PAYPAL"] = webhook
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/in/paypal", strings.NewReader(text))
		for name, value := range map[string]string{
			"Transmission-Id": id, "Transmission-Time": at, "Auth-Algo": "SHA256withRSA",
			"Transmission-Sig": base64.StdEncoding.EncodeToString(raw), "Cert-Url": "https://api.paypal.com/v1/notifications/certs/CERT-1",
		} {
			r.Header.Set("Paypal-"+name, value)
		}
		return r
	}
	l := newLab(t, gateway.WithRoots(gateway.Config{Client: n.client(false, loopback)}, n.roots), map[string]string{"paypal.yaml": source})
	l.env["PAYPAL"] = webhook
	l.load()
	l.want(post(l, "1", leaf), http.StatusOK)
	l.want(post(l, "2", leaf), http.StatusOK)
	l.want(post(l, "3", between), http.StatusUnauthorized)
	if got, asked := len(l.log.in("webhooks.paypal")), n.count("GET api.paypal.com/v1/notifications/certs/CERT-1"); got != 2 || asked != 1 {
		t.Errorf("%d events, the certificate was asked for %d times", got, asked)
	}
	// The same name on a private network is nobody's to reach, unless the operator allows it.
	l = newLab(t, gateway.WithRoots(gateway.Config{Client: n.client(false)}, n.roots), map[string]string{"paypal.yaml": source})
	l.env["PAYPAL"] = webhook
	l.load()
	l.want(post(l, "4", leaf), http.StatusServiceUnavailable)
	if n.count("GET api.paypal.com/v1/notifications/certs/CERT-1") != 1 {
		t.Error("a private address was reached")
	}
}

// SNS publishes its own certificate alone, by https; the one above is the authority's, by http. A subscription is
// confirmed by fetching what the signed message names.
func TestSNSIsConfirmedAndItsCertificatesAreFetched(t *testing.T) {
	t.Parallel()
	const host = "sns.eu-west-1.amazonaws.com"
	root := (*authority)(nil).issue(t, "root", "")
	middle := root.issue(t, "middle", "")
	leaf := middle.issue(t, "sns.amazonaws.com", "http://crt.rootca1.amazontrust.com/middle.cer")
	n := newInternet(t, root, host)
	n.put(host+"/leaf.pem", inPEM(leaf))
	n.put("crt.rootca1.amazontrust.com/middle.cer", middle.cert.Raw)
	n.put(host + "/?Action=ConfirmSubscription&Token=2336")
	l := newLab(t, gateway.WithRoots(gateway.Config{Client: n.client(false, loopback), Issuers: n.client(true, loopback)}, n.roots),
		map[string]string{"sns.yaml": snsSource + "confirm: true\n"})
	l.env["ARN"] = arn
	l.load()
	subscription := func(token string, by *authority) *http.Request {
		m := map[string]string{
			"Message": "You have chosen", "MessageId": "m" + token, "SubscribeURL": "https://" + host + "/?Action=ConfirmSubscription&Token=" + token,
			"Timestamp": time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), "Token": token, "TopicArn": arn, "Type": "SubscriptionConfirmation",
		}
		var text strings.Builder
		for _, name := range []string{"Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"} {
			fmt.Fprintf(&text, "%s\n%s\n", name, m[name])
		}
		sum := sha256.Sum256([]byte(text.String()))
		raw, err := by.key.Sign(nil, sum[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		m["SignatureVersion"], m["Signature"], m["SigningCertURL"] = "2", base64.StdEncoding.EncodeToString(raw), "https://"+host+"/leaf.pem"
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/in/sns", strings.NewReader(string(b)))
	}
	l.want(subscription("2336", middle), http.StatusUnauthorized)
	if n.count("GET "+host+"/?Action=ConfirmSubscription&Token=2336") != 0 {
		t.Error("a forger's subscription was confirmed")
	}
	l.want(subscription("2336", leaf), http.StatusOK)
	l.want(subscription("9999", leaf), http.StatusServiceUnavailable) // SNS does not know it: it asks again
	l.want(notification(t, leaf.key, "m1", "https://"+host+"/leaf.pem"), http.StatusOK)
	for what, want := range map[string]int{
		"GET " + host + "/leaf.pem": 1, "GET crt.rootca1.amazontrust.com/middle.cer": 1, "GET " + host + "/?Action=ConfirmSubscription&Token=2336": 1,
	} {
		if got := n.count(what); got != want {
			t.Errorf("%s: %d times, want %d", what, got, want)
		}
	}
	if got := len(l.log.in("webhooks.sns")); got != 1 {
		t.Errorf("%d events, want the notification alone", got)
	}
}
