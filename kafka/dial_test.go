package kafka

import (
	"context"
	"net"
	"strings"
	"testing"
)

// The seeds of a cluster are checked when its settings are; where they send us is known only when we dial.
func TestDialRefusesToSendAPasswordInPlainText(t *testing.T) {
	t.Parallel()
	for address, refused := range map[string]bool{"127.0.0.1:9092": false, "[::1]:9092": false, "localhost:9092": false, "kafka-2:9092": true, "192.0.2.1:9092": true} {
		ours, theirs := net.Pipe()
		t.Cleanup(func() { _, _ = ours.Close(), theirs.Close() })
		c := Cluster{Seeds: []string{"127.0.0.1:9092"}, Auth: Plain("u", "p"), Dial: func(context.Context, string, string) (net.Conn, error) { return ours, nil }}
		conn, err := c.dial(t.Context(), "tcp", address)
		if (err != nil) != refused {
			t.Errorf("dial %s: %v, want refused: %t", address, err, refused)
		}
		if refused && (conn != nil || !strings.Contains(err.Error(), "plain text")) {
			t.Errorf("dial %s: %v", address, err)
		}
	}
}

func TestVersionIsOneThatBrokersTake(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"v1.2.3": "v1.2.3", "(devel)": "devel", "v0.0.0-20260101+dirty": "v0.0.0-20260101-dirty", "": "dev", "..--": "dev"} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}
