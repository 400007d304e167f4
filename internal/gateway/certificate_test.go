package gateway_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/gateway"
)

// authority is a certificate with its key, issued by another or by itself.
type authority struct {
	cert *x509.Certificate
	key  *rsa.PrivateKey
}

func (by *authority) issue(t *testing.T, name, above string) *authority {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: !strings.Contains(name, "."), BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if above != "" {
		template.IssuingCertificateURL = []string{above}
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

const arn = "arn:aws:sns:eu-west-1:123456789012:orders"

// notification is a message of SNS's under a key.
func notification(t *testing.T, key *rsa.PrivateKey, id, certificate string) *http.Request {
	t.Helper()
	m := map[string]string{"Message": "{}", "MessageId": id, "Timestamp": time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), "TopicArn": arn, "Type": "Notification"}
	var text strings.Builder
	for _, name := range []string{"Message", "MessageId", "Timestamp", "TopicArn", "Type"} {
		fmt.Fprintf(&text, "%s\n%s\n", name, m[name])
	}
	sum := sha256.Sum256([]byte(text.String()))
	raw, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	m["SignatureVersion"], m["Signature"], m["SigningCertURL"] = "2", base64.StdEncoding.EncodeToString(raw), certificate
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/in/sns", strings.NewReader(string(b)))
}

const snsSource = "scheme: sns\nsecrets: [env:ARN]\ntopic: webhooks.sns\n"

// SNS publishes its own certificate alone: those between it and a root are fetched from the authority, by http.
func TestCertificatesAboveTheSendersAreFetched(t *testing.T) {
	t.Parallel()
	const host = "https://sns.eu-west-1.amazonaws.com/"
	root := (*authority)(nil).issue(t, "root", "")
	upper := root.issue(t, "upper", "")
	lower := upper.issue(t, "lower", "http://crt.rootca1.amazontrust.com/upper.cer")
	leaf := lower.issue(t, "sns.amazonaws.com", "http://crt.rootca1.amazontrust.com/lower.cer")
	stray := lower.issue(t, "sns.amazonaws.com", "http://127.0.0.1/lower.cer")
	files := map[string][]byte{
		host + "leaf.pem":  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.cert.Raw}),
		host + "stray.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: stray.cert.Raw}),
	}
	above := map[string][]byte{
		"http://crt.rootca1.amazontrust.com/upper.cer": upper.cert.Raw,
		"http://crt.rootca1.amazontrust.com/lower.cer": lower.cert.Raw,
	}
	var strangers atomic.Int64
	serve := func(of map[string][]byte) *http.Client {
		return &http.Client{Transport: answering(func(r *http.Request) (*http.Response, error) {
			b, ok := of[r.URL.String()]
			if !ok {
				strangers.Add(1)
				return nil, io.ErrUnexpectedEOF
			}
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(string(b)))}, nil
		})}
	}
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	l := newLab(t, gateway.WithRoots(gateway.Config{Client: serve(files), Issuers: serve(above)}, roots), map[string]string{"sns.yaml": snsSource})
	l.env["ARN"] = arn
	l.load()
	l.want(notification(t, leaf.key, "m1", host+"leaf.pem"), http.StatusOK)
	l.want(notification(t, lower.key, "m2", host+"leaf.pem"), http.StatusUnauthorized)
	l.want(notification(t, stray.key, "m3", host+"stray.pem"), http.StatusUnauthorized)
	if n := len(l.log.in("webhooks.sns")); n != 1 {
		t.Errorf("%d events", n)
	}
	if strangers.Load() != 0 {
		t.Error("a certificate was asked for where no authority is")
	}
}

// A forger chooses the path on the sender's host: neither do the fetches pile up, nor is the sender's own forgotten.
func TestAForgersCertificatesDriveNobodyOut(t *testing.T) {
	t.Parallel()
	const host = "https://sns.eu-west-1.amazonaws.com/"
	root := (*authority)(nil).issue(t, "root", "")
	leaf := root.issue(t, "sns.amazonaws.com", "")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.cert.Raw})
	var fetched, under, most atomic.Int64
	hang := make(chan struct{})
	client := &http.Client{Transport: answering(func(r *http.Request) (*http.Response, error) {
		switch {
		case r.URL.Path == "/leaf.pem":
			fetched.Add(1)
			return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(string(text)))}, nil
		case strings.HasPrefix(r.URL.Path, "/hang"):
			most.Store(max(most.Load(), under.Add(1)))
			<-hang
		}
		return nil, io.ErrUnexpectedEOF
	})}
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	l := newLab(t, gateway.WithRoots(gateway.Config{Client: client}, roots), map[string]string{"sns.yaml": snsSource})
	l.env["ARN"] = arn
	l.load()
	l.want(notification(t, leaf.key, "m0", host+"leaf.pem"), http.StatusOK)
	for i := range 200 {
		l.want(notification(t, leaf.key, "f", fmt.Sprintf("%s%d.pem", host, i)), http.StatusServiceUnavailable)
	}
	l.want(notification(t, leaf.key, "m1", host+"leaf.pem"), http.StatusOK)
	if fetched.Load() != 1 {
		t.Errorf("the sender's certificate was fetched %d times", fetched.Load())
	}
	ended := make(chan struct{})
	const forged = 50
	for i := range forged {
		r := notification(t, leaf.key, "f", fmt.Sprintf("%shang%d.pem", host, i))
		go func() { l.ask(r); ended <- struct{}{} }()
	}
	for range forged - 8 { // all but those that are being fetched are answered at once
		<-ended
	}
	l.want(notification(t, leaf.key, "m2", host+"leaf.pem"), http.StatusOK)
	close(hang)
	for range 8 {
		<-ended
	}
	if most.Load() > 8 {
		t.Errorf("%d were fetched at once", most.Load())
	}
}
