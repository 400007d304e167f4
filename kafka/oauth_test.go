package kafka_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/kafka"
)

func TestOAuthSendsTheToken(t *testing.T) {
	t.Parallel()
	logins := make(chan []byte, 1)
	c := kafka.Cluster{Seeds: []string{loginServer(t, logins)}, Auth: kafka.OAuth(token)}
	_ = c.Ping(t.Context()) // the server hangs up after the login
	if got, want := <-logins, "n,,\x01auth=Bearer token\x01\x01"; string(got) != want {
		t.Errorf("sent %q, want %q", got, want)
	}
}

func TestOAuthWithoutATokenSaysWhy(t *testing.T) {
	t.Parallel()
	reason := errors.New("the token server is down")
	c := kafka.Cluster{Seeds: []string{loginServer(t, nil)}, Auth: kafka.OAuth(func(context.Context) (string, error) { return "", reason })}
	if err := c.Ping(t.Context()); !errors.Is(err, reason) || !strings.Contains(err.Error(), "fetch an OAuth token") {
		t.Errorf("got %v", err)
	}
}

// loginServer is a broker that knows how to be logged in to, and no more. It sends the bytes of a login to logins and hangs up.
func loginServer(t *testing.T, logins chan<- []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				for answer(conn, logins) {
				}
			}()
		}
	}()
	return l.Addr().String()
}

// answer answers one request, and reports whether another may come.
func answer(conn net.Conn, logins chan<- []byte) bool {
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return false
	}
	raw := make([]byte, binary.BigEndian.Uint32(size[:])&0xffff)
	if _, err := io.ReadFull(conn, raw); err != nil {
		return false
	}
	correlation := raw[4:8]
	var body []byte
	switch kmsg.Key(binary.BigEndian.Uint16(raw)) {
	case kmsg.ApiVersions:
		resp := kmsg.NewPtrApiVersionsResponse()
		for key, version := range map[kmsg.Key]int16{kmsg.Produce: 9, kmsg.Metadata: 9, kmsg.ApiVersions: 0, kmsg.SASLHandshake: 1, kmsg.SASLAuthenticate: 0} {
			resp.ApiKeys = append(resp.ApiKeys, kmsg.ApiVersionsResponseApiKey{ApiKey: int16(key), MaxVersion: version})
		}
		if binary.BigEndian.Uint16(raw[2:]) > 0 {
			resp.ErrorCode = 35 // UNSUPPORTED_VERSION: ask again with version 0
		}
		body = resp.AppendTo(nil)
	case kmsg.SASLHandshake:
		resp := kmsg.NewPtrSASLHandshakeResponse()
		resp.Version, resp.SupportedMechanisms = 1, []string{"OAUTHBEARER"}
		body = resp.AppendTo(nil)
	case kmsg.SASLAuthenticate:
		req := kmsg.NewPtrSASLAuthenticateRequest()
		client := int(binary.BigEndian.Uint16(raw[8:]))
		if req.ReadFrom(raw[10+client:]) == nil {
			select {
			case logins <- bytes.Clone(req.SASLAuthBytes):
			default: // a second try
			}
		}
		return false
	default:
		return false
	}
	out := binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))
	_, err := conn.Write(append(append(out, correlation...), body...))
	return err == nil
}
