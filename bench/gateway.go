package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/gateway"
	"github.com/millrace/millrace/kafka"
	"github.com/millrace/millrace/producer"
)

const (
	webhookSecret = "bench-secret"
	senders       = 64 // connections that are kept alive; each waits for its answer
)

// gatewayArms take signed webhooks of 1 KiB in over HTTP and answer when Kafka has them. Their CPU time holds that of the senders.
func (w *work) gatewayArms() []arm {
	return []arm{
		{"gateway bare", "", w.bareGateway},
		{"gateway", "gateway bare", w.gateway},
	}
}

// bareGateway is what a handler written for one sender does: no bounds, no repeats, no envelope.
func (w *work) bareGateway(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
	return w.into(ctx, c, topic, func(topic string) error {
		client, err := c.Client(kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(50_000))
		if err != nil {
			return err
		}
		defer client.Close()
		return serveTo(ctx, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, 1<<20))
			if err != nil {
				http.Error(rw, "bad body", http.StatusBadRequest)
				return
			}
			given, err := hex.DecodeString(strings.TrimPrefix(r.Header.Get("X-Hub-Signature-256"), "sha256="))
			if err != nil || !hmac.Equal(given, webhookMAC(body)) {
				http.Error(rw, "unauthorized", http.StatusUnauthorized)
				return
			}
			if client.ProduceSync(r.Context(), &kgo.Record{Topic: topic, Value: body}).FirstErr() != nil {
				http.Error(rw, "come again", http.StatusServiceUnavailable)
			}
		}), n, k)
	})
}

// gateway is ours, with its producer as the role gateway sets it.
func (w *work) gateway(ctx context.Context, c kafka.Cluster, topic string, n int, k *clock) error {
	return w.into(ctx, c, topic, func(topic string) error {
		dir, err := os.MkdirTemp("", "millrace-bench-")
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		text := "scheme: github\nsecrets: [env:BENCH]\ntopic: " + topic + "\n"
		if err := os.WriteFile(filepath.Join(dir, "bench.yaml"), []byte(text), 0o600); err != nil {
			return err
		}
		p, err := producer.New(c, nil, producer.Config{Linger: -1, BatchBytes: gateway.DefaultRecordBytes, Compression: w.compression})
		if err != nil {
			return err
		}
		g, err := gateway.New(p, w.registry, gateway.Config{
			Folder: gateway.Folder{Dir: dir, Getenv: func(string) string { return webhookSecret }, MaxBody: gateway.DefaultRecordBytes - gateway.RecordRoom},
		})
		if err != nil {
			return errors.Join(err, p.Close(ctx))
		}
		if _, err = g.Reload(ctx); err == nil {
			err = serveTo(ctx, g, n, k)
		}
		return errors.Join(err, g.Close(ctx), p.Close(ctx))
	})
}

func webhookMAC(body []byte) []byte {
	m := hmac.New(sha256.New, []byte(webhookSecret))
	m.Write(body)
	return m.Sum(nil)
}

// serveTo serves h on a port, and sends it n webhooks that were signed before.
func serveTo(ctx context.Context, h http.Handler, n int, k *clock) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(ln) }()
	defer func() { _ = server.Close() }()
	if err := post(ctx, ln.Addr().String(), webhooks(0, 1)); err != nil { // connects and learns the topic
		return err
	}
	loads := make([][]byte, senders)
	for i := range loads {
		loads[i] = webhooks(1+i*n/senders, 1+(i+1)*n/senders)
	}
	errs := make([]error, senders)
	var wg sync.WaitGroup
	k.start()
	for i, load := range loads {
		wg.Go(func() { errs[i] = post(ctx, ln.Addr().String(), load) })
	}
	wg.Wait()
	k.stop()
	return errors.Join(errs...)
}

// webhooks are the requests from to to, one after the other. All are of the same size.
func webhooks(from, to int) []byte {
	pad := strings.Repeat("x", 1000)
	var out []byte
	for i := from; i < to; i++ {
		body := fmt.Appendf(nil, `{"n":"%010d","p":%q}`, i, pad)
		out = fmt.Appendf(out, "POST /in/bench HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nX-GitHub-Delivery: %010d\r\nX-Hub-Signature-256: sha256=%x\r\nContent-Length: %d\r\n\r\n%s",
			i, webhookMAC(body), len(body), body)
	}
	return out
}

// post sends requests over one connection. Each but a 200 is an error.
func post(ctx context.Context, address string, requests []byte) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		return err
	}
	in, size := bufio.NewReader(conn), len(webhooks(0, 1))
	for ; len(requests) > 0; requests = requests[size:] {
		if _, err := conn.Write(requests[:size]); err != nil {
			return err
		}
		head, err := in.Peek(len("HTTP/1.1 200"))
		if err != nil {
			return err
		}
		if !bytes.HasSuffix(head, []byte(" 200")) {
			return fmt.Errorf("the answer is %q", head)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		_ = resp.Body.Close()
	}
	return nil
}
