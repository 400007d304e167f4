package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// peak is the most memory that a process has had, in MiB.
func peak(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		t.Fatal("the kernel tells no VmHWM")
	}
	kib, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kib >> 10
}

// What strangers send costs a gateway no more than 256 MiB, whatever it is: gigabytes, bombs, a thousand slow bodies.
func TestGatewayMemoryIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write(t, "sources/open.yaml", "verify: none\ntopic: webhooks.open\ngzip: true\n")
	w.write(t, "sources/shut.yaml", "scheme: github\nsecrets: [file:../secret]\ntopic: webhooks.shut\n")
	w.write(t, "secret", "s3cret")
	binary := filepath.Join(t.TempDir(), "millrace") // not the test's own, which the race detector makes many times larger
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	cmd := command(t.Context(), w.dir, "serve", "gateway", "-B", w.env["MILLRACE_BROKERS"], "--registry", w.env["MILLRACE_REGISTRY"],
		"--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--create-topics", "--proxies", "127.0.0.0/8")
	cmd.Path = binary
	r, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = stderr.Close()
	d := &devRun{cmd: cmd, lines: make(chan string, 1000)}
	go d.scan(r)
	address := d.await(t, `gateway answers.*"url": "http://(127\.0\.0\.1:\d+)"`)[1]
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	for range 512 {
		if _, err := z.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	_ = z.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	send := func(raw string, more int) {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(4 * time.Second))
		_, _ = io.WriteString(c, raw)
		block := []byte(strings.Repeat("x", 1<<20))
		for range more {
			if _, err := c.Write(block); err != nil {
				break
			}
		}
		_, _ = io.Copy(io.Discard, c)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() { send("POST /in/shut HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n", 1024) })
		all.Go(func() {
			send("POST /in/shut HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n", 1024)
		})
		all.Go(func() { send("POST /in/shut HTTP/1.1\r\nX: ", 64) })
		all.Go(func() {
			send(fmt.Sprintf("POST /in/open HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", bomb.Len(), bomb.String()), 0)
		})
	}
	for range 1000 {
		all.Go(func() {
			send("POST /in/shut HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("x", 60_000), 0)
		})
	}
	all.Wait()
	resp, err := http.Post("http://"+address+"/in/open", "text/plain", strings.NewReader("still here"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("got %d", resp.StatusCode)
	}
	if mib := peak(t, cmd.Process.Pid); mib >= 256 {
		t.Errorf("it had %d MiB of memory at its peak", mib)
	} else {
		t.Logf("peak: %d MiB", mib)
	}
	_ = cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil {
		t.Errorf("the end: %v", err)
	}
}
