package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openTerminal makes a pseudo terminal: what a person sees and types, and the side of the program.
func openTerminal(t *testing.T, width, height uint16) (person, program *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	person = os.NewFile(uintptr(fd), "/dev/ptmx")
	t.Cleanup(func() { _ = person.Close() })
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width}); err != nil {
		t.Fatal(err)
	}
	if program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return person, program
}

var escapes = regexp.MustCompile(`\x1b\[[0-9;]*[A-Za-z]`)

// Keys on the running screen: k kills a consumer, whose counts stay right; p adds poison, whose dead letter is shown; q
// ends it and gives the terminal back.
func TestDevKeys(t *testing.T) {
	t.Parallel()
	const width = 120
	person, program := openTerminal(t, width, 50)
	before, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	cmd := command(t.Context(), t.TempDir(), "dev", "--demo", "--port", "0", "--registry-port", "0", "--for", "5m")
	cmd.Env = append(cmd.Env, "NO_COLOR=1")
	cmd.Stdin, cmd.Stdout = program, program
	d := &devRun{cmd: cmd, lines: make(chan string, 100_000)}
	cmd.Stderr = &d.err
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go d.scan(person)
	press := func(key string) {
		t.Helper()
		if _, err := person.WriteString(key); err != nil {
			t.Fatal(err)
		}
	}
	d.await(t, `q quits`)
	d.await(t, `analytics +running +[1-9]`)
	press("k")
	victim := d.await(t, `killed (\w+) \(pid \d+, SIGKILL\)`)[1]
	d.await(t, victim+` +rejoining`)
	press("p")
	d.await(t, `poison published: shop\.orders partition`)
	d.await(t, `dead letter in shop\.orders\.\w+\.dlq: poison, from shop\.orders`)
	d.await(t, victim+` is back \(pid \d+\): all [\d,]+ events up to its death are done, none is missing`)
	press("q")
	began := time.Now()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the end: got %v, want exit code 0\n%s", err, d.err.String())
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the stop took %v, want less than 10 s (TestDevStopsInTime holds it to five)", took)
	}
	after, err := unix.IoctlGetTermios(int(program.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	if *after != *before {
		t.Error("the terminal is not as it was")
	}
	for _, l := range d.said {
		if text := strings.TrimRight(escapes.ReplaceAllString(l, ""), "\r"); len([]rune(text)) >= width {
			t.Errorf("a line of %d columns on a terminal of %d: %q", len([]rune(text)), width, text)
		}
		if strings.Contains(l, "\x1b[1m") || strings.Contains(l, "\x1b[2m") {
			t.Errorf("colours, with NO_COLOR set: %q", l)
		}
	}
}
