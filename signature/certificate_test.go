package signature_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"maps"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/signature"
)

// authority is a certificate authority with a certificate for a name.
type authority struct {
	key   *rsa.PrivateKey
	roots *x509.CertPool
	pem   []byte
}

var newKeys = sync.OnceValues(func() ([2]*rsa.PrivateKey, error) {
	var keys [2]*rsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return keys, err
		}
	}
	return keys, nil
})

func newAuthority(tb testing.TB, name string) authority {
	tb.Helper()
	keys, err := newKeys()
	if err != nil {
		tb.Fatal(err)
	}
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(24 * 365 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(24 * time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, keys[0].Public(), keys[0])
	if err != nil {
		tb.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, keys[1].Public(), keys[0])
	if err != nil {
		tb.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(rootDER)
	if err != nil {
		tb.Fatal(err)
	}
	a := authority{key: keys[1], roots: x509.NewCertPool(), pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER})}
	a.roots.AddCert(parsed)
	return a
}

func (a authority) chain(tb testing.TB) *signature.Chain {
	tb.Helper()
	c, err := signature.ParseChain(a.pem, a.roots)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func (a authority) sign(tb testing.TB, how crypto.Hash, text string) string {
	tb.Helper()
	sum1, sum2 := sha1.Sum([]byte(text)), sha256.Sum256([]byte(text))
	sum := sum2[:]
	if how == crypto.SHA1 {
		sum = sum1[:]
	}
	sig, err := rsa.SignPKCS1v15(rand.Reader, a.key, how, sum)
	if err != nil {
		tb.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(sig)
}

func paypalRequest(tb testing.TB, a authority) *signature.Request {
	tb.Helper()
	body := `{"id":"WH-1","event_type":"PAYMENT.SALE.COMPLETED"}`
	at := noon.UTC().Format(time.RFC3339)
	return &signature.Request{
		Method: "POST", Body: []byte(body), Chain: a.chain(tb),
		Header: http.Header{
			"Paypal-Transmission-Id":   {"69cd13f0-d67a-11e5-baa3-778b53f4ae55"},
			"Paypal-Transmission-Time": {at},
			"Paypal-Cert-Url":          {"https://api.paypal.com/v1/notifications/certs/CERT-1"},
			"Paypal-Transmission-Sig": {a.sign(tb, crypto.SHA256, fmt.Sprintf(
				"69cd13f0-d67a-11e5-baa3-778b53f4ae55|%s|1JE4291016473214C|%d", at, crc32.ChecksumIEEE([]byte(body))))},
		},
	}
}

func TestPayPal(t *testing.T) {
	t.Parallel()
	s := lookup(t, "paypal")
	good, evil := newAuthority(t, "messageverificationcerts.paypal.com"), newAuthority(t, "paypal.com.evil.example")
	key := parseKey(t, s, "1JE4291016473214C")
	if v, err := s.Verify(paypalRequest(t, good), []signature.Key{parseKey(t, s, "other"), key}, noon); err != nil || v.Key != 1 || !v.Time.Equal(noon) {
		t.Errorf("got %+v, %v", v, err)
	}
	if url, err := s.CertificateURL(paypalRequest(t, good)); err != nil || url != "https://api.paypal.com/v1/notifications/certs/CERT-1" {
		t.Errorf("got %q, %v", url, err)
	}
	for _, c := range []struct {
		name   string
		at     time.Time
		change func(*signature.Request)
		want   signature.Reason
	}{
		{"another body", noon, func(r *signature.Request) { r.Body = []byte("{}") }, signature.Mismatch},
		{"no certificate", noon, func(r *signature.Request) { r.Chain = nil }, signature.Mismatch},
		{"a certificate for another name", noon, func(r *signature.Request) { r.Chain = evil.chain(t) }, signature.Mismatch},
		{"roots that do not know it", noon, func(r *signature.Request) {
			r.Chain, _ = signature.ParseChain(good.pem, x509.NewCertPool())
		}, signature.Mismatch},
		{"a certificate that ended", noon.Add(25 * time.Hour), func(*signature.Request) {}, signature.Mismatch},
		{"four days later", noon.Add(96 * time.Hour), func(*signature.Request) {}, signature.Stale},
		{"ten minutes before", noon.Add(-10 * time.Minute), func(*signature.Request) {}, signature.Future},
		{"a URL elsewhere", noon, func(r *signature.Request) { r.Header["Paypal-Cert-Url"] = []string{"https://evil.example/c"} }, signature.Mismatch},
		{"no id", noon, func(r *signature.Request) { delete(r.Header, "Paypal-Transmission-Id") }, signature.Missing},
	} {
		req := paypalRequest(t, good)
		c.change(req)
		if _, err := s.Verify(req, []signature.Key{key}, c.at); reason(err) != c.want {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
	if _, err := s.Sign(&signature.Request{}, []signature.Key{key}, "x", noon); err == nil {
		t.Error("somebody signed for PayPal")
	}
}

func TestCertificateURLsAreTheSendersOwn(t *testing.T) {
	t.Parallel()
	for _, u := range []string{
		"http://api.paypal.com/c", "https://api.paypal.com:444/c", "https://api.paypal.com.evil.example/c", "https://evilpaypal.com/c", "https://paypal.com/c",
		"https://user@api.paypal.com/c", "https://api.paypal.com@evil.example/c", "https://evil.example/api.paypal.com", "https://evil.example#.paypal.com",
		"https://evil.example\\.paypal.com/c", "//api.paypal.com/c", "https:api.paypal.com", "https://[::1].paypal.com/", "", "https://api.paypal.com/\n",
		"https://127.0.0.1/c", "file:///etc/passwd", "https://API.paypal.com/c", "https://a_b.paypal.com/c", "https://api.paypal.com/" + strings.Repeat("c", 2048),
	} {
		req := &signature.Request{Header: http.Header{"Paypal-Cert-Url": {u}}}
		if got, err := lookup(t, "paypal").CertificateURL(req); err == nil {
			t.Errorf("%q is taken for PayPal's: %s", u, got)
		}
	}
	for u, ok := range map[string]bool{
		"https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem":     true,
		"https://sns.cn-north-1.amazonaws.com.cn/SimpleNotificationService-1.pem": true,
		"https://sns.eu-west-1.amazonaws.com.evil.example/c.pem":                  false,
		"https://bucket.s3.amazonaws.com/c.pem":                                   false,
		"https://sns.amazonaws.com/c.pem":                                         false,
		"https://sns.eu-west-1.s3.amazonaws.com/c.pem":                            false,
		"http://sns.eu-west-1.amazonaws.com/c.pem":                                false,
		"https://sns.s3-us-west-2.amazonaws.com/c.pem":                            false, // a bucket
		"https://sns.us-gov-west-1.amazonaws.com/c.pem":                           true,
	} {
		body, err := json.Marshal(map[string]string{"Type": "Notification", "SigningCertURL": u})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := lookup(t, "sns").CertificateURL(&signature.Request{Body: body}); (err == nil) != ok {
			t.Errorf("%s: got %v, want ok %v", u, err, ok)
		}
	}
	if got, err := lookup(t, "stripe").CertificateURL(&signature.Request{}); got != "" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func snsRequest(tb testing.TB, a authority, how crypto.Hash, message map[string]string) *signature.Request {
	tb.Helper()
	names := []string{"Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"}
	if message["Type"] != "Notification" {
		names = []string{"Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"}
	}
	message = maps.Clone(message)
	var text strings.Builder
	for _, name := range names {
		if v, ok := message[name]; ok {
			fmt.Fprintf(&text, "%s\n%s\n", name, v)
		}
	}
	message["SignatureVersion"] = map[crypto.Hash]string{crypto.SHA1: "1", crypto.SHA256: "2"}[how]
	message["Signature"] = a.sign(tb, how, text.String())
	message["SigningCertURL"] = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"
	body, err := json.Marshal(message)
	if err != nil {
		tb.Fatal(err)
	}
	return &signature.Request{Method: "POST", Body: body, Chain: a.chain(tb)}
}

func TestSNS(t *testing.T) {
	t.Parallel()
	s, a := lookup(t, "sns"), newAuthority(t, "sns.amazonaws.com")
	const topic = "arn:aws:sns:eu-west-1:123456789012:MyTopic"
	key := parseKey(t, s, topic)
	message := map[string]string{
		"Type": "Notification", "MessageId": "22b8", "TopicArn": topic, "Subject": "My First Message", "Message": "Hello\nworld \"é\"",
		"Timestamp": noon.UTC().Format("2006-01-02T15:04:05.000Z"),
	}
	for _, how := range []crypto.Hash{crypto.SHA1, crypto.SHA256} {
		req := snsRequest(t, a, how, message)
		if v, err := s.Verify(req, []signature.Key{key}, noon.Add(time.Hour)); err != nil || !v.Time.Equal(noon) {
			t.Errorf("%v: got %v, %v", how, v, err)
		}
		if id := s.Identify(req); id.ID != "22b8" {
			t.Errorf("got the id %q", id.ID)
		}
	}
	req := snsRequest(t, a, crypto.SHA256, message)
	for _, c := range []struct {
		name string
		body func(string) string
		keys []signature.Key
		want signature.Reason
	}{
		{"another message", func(b string) string { return strings.Replace(b, "Hello", "Howdy", 1) }, []signature.Key{key}, signature.Mismatch},
		{"a field twice", func(b string) string { return strings.Replace(b, "{", `{"message":"first",`, 1) }, []signature.Key{key}, signature.Malformed},
		{"another topic", func(b string) string { return b }, []signature.Key{parseKey(t, s, topic+"2")}, signature.Mismatch},
		{"a topic no longer expected", func(b string) string { return b }, []signature.Key{key.Until(noon)}, signature.Mismatch},
		{"an unknown version", func(b string) string {
			return strings.Replace(b, `"SignatureVersion":"2"`, `"SignatureVersion":"3"`, 1)
		}, []signature.Key{key}, signature.Malformed},
		{"the other version", func(b string) string {
			return strings.Replace(b, `"SignatureVersion":"2"`, `"SignatureVersion":"1"`, 1)
		}, []signature.Key{key}, signature.Mismatch},
		{"no signature", func(b string) string { return strings.Replace(b, `"Signature"`, `"Signatur"`, 1) }, []signature.Key{key}, signature.Missing},
		{"an unknown type", func(b string) string { return strings.Replace(b, `"Type":"Notification"`, `"Type":"Other"`, 1) }, []signature.Key{key}, signature.Malformed},
		{"no JSON", func(string) string { return "Hello" }, []signature.Key{key}, signature.Malformed},
	} {
		changed := *req
		changed.Body = []byte(c.body(string(req.Body)))
		if _, err := s.Verify(&changed, c.keys, noon); reason(err) != c.want {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
}

func TestSNSConfirmsOnlyItsOwnHosts(t *testing.T) {
	t.Parallel()
	s, a := lookup(t, "sns"), newAuthority(t, "sns.eu-west-1.amazonaws.com")
	const topic = "arn:aws:sns:eu-west-1:123456789012:MyTopic"
	message := map[string]string{
		"Type": "SubscriptionConfirmation", "MessageId": "1", "TopicArn": topic, "Message": "You have chosen", "Token": "2336",
		"Timestamp":    noon.UTC().Format(time.RFC3339),
		"SubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&Token=2336",
	}
	keys := []signature.Key{parseKey(t, s, topic)}
	got, err := s.Greet(snsRequest(t, a, crypto.SHA256, message), keys, nil, noon)
	if err != nil || got == nil || got.Fetch != message["SubscribeURL"] || got.Status != 200 {
		t.Errorf("got %+v, %v", got, err)
	}
	message["SubscribeURL"] = "https://169.254.169.254/latest"
	if got, err := s.Greet(snsRequest(t, a, crypto.SHA256, message), keys, nil, noon); reason(err) != signature.Malformed {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestParseChain(t *testing.T) {
	t.Parallel()
	a := newAuthority(t, "sns.amazonaws.com")
	for name, text := range map[string]string{
		"nothing":        "",
		"no PEM":         "hello",
		"no certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"too many":       strings.Repeat(string(a.pem), 9),
	} {
		if _, err := signature.ParseChain([]byte(text), nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// SNS publishes its own certificate alone: the one between it and the root is found and added.
func TestAChainIsCompleted(t *testing.T) {
	t.Parallel()
	keys, err := newKeys()
	if err != nil {
		t.Fatal(err)
	}
	issue := func(name string, n int64, ca bool, issuer []string, parent *x509.Certificate, key, by *rsa.PrivateKey) *x509.Certificate {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IsCA: ca, BasicConstraintsValid: true,
			NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour), KeyUsage: x509.KeyUsageCertSign, IssuingCertificateURL: issuer,
		}
		if parent == nil {
			parent = c
		}
		der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	const place = "http://crt.r2m01.amazontrust.com/r2m01.cer"
	root := issue("root", 1, true, nil, nil, keys[0], keys[0])
	between := issue("between", 2, true, nil, root, keys[0], keys[0])
	roots := x509.NewCertPool()
	roots.AddCert(root)
	for issuer, want := range map[string]string{
		place: place, "http://169.254.169.254/": "", "http://crt.evil.example/": "", "ldap://crt.amazontrust.com/": "", "http://crt.amazontrust.com:8080/": "",
	} {
		leaf := issue("sns.amazonaws.com", 3, false, []string{issuer}, between, keys[1], keys[0])
		chain, err := signature.ParseChain(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}), roots)
		if err != nil {
			t.Fatal(err)
		}
		if got := chain.Issuer(noon); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		whole, err := chain.With(between.Raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := whole.Issuer(noon); got != "" {
			t.Errorf("a whole chain wants %q", got)
		}
		if _, err := chain.With([]byte("hello")); err == nil {
			t.Error("a text was taken for a certificate")
		}
	}
}
