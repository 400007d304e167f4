package kafkatest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// pom asks Maven for a broker, its tools, and something that writes its log.
const pom = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>millrace</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>VERSION</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>VERSION</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
`

// ErrMissing is returned when this machine lacks what a real Kafka needs: Java 17, and Maven for the first run.
var ErrMissing = errors.New("Java 17 or Maven is missing")

// Classpath returns the class path of Apache Kafka's brokers and tools, "libs/a.jar:libs/b.jar", for a Java program
// of a test too. The jars (54 MB) are fetched by Maven once and kept in the user's cache; any number of processes
// may ask at once.
func Classpath(ctx context.Context, version string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "millrace", "kafka-"+version)
	if _, err := exec.LookPath("java"); err != nil {
		return "", fmt.Errorf("%w: no java on the path: install a JDK 17", ErrMissing)
	}
	if err := fetch(ctx, version, dir); err != nil {
		return "", fmt.Errorf("fetch Apache Kafka %s: %w", version, err)
	}
	jars, err := filepath.Glob(filepath.Join(dir, "*.jar"))
	if err != nil {
		return "", err
	}
	// Two bindings of one log quarrel: ours stays.
	jars = slices.DeleteFunc(jars, func(jar string) bool { return strings.HasPrefix(filepath.Base(jar), "slf4j-reload4j") })
	return strings.Join(jars, string(os.PathListSeparator)), nil
}

// fetch makes dir hold the jars. It appears whole, by a rename, or not at all.
func fetch(ctx context.Context, version, dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if _, err := exec.LookPath("mvn"); err != nil {
		return fmt.Errorf("%w: no mvn on the path: install Maven", ErrMissing)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return err
	}
	unlock, err := lock(ctx, dir+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil {
		return nil // someone else was quicker
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "fetch-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), []byte(strings.ReplaceAll(pom, "VERSION", version)), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	libs := filepath.Join(work, "libs")
	cmd := exec.CommandContext(ctx, "mvn", "-B", "-q", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+libs)
	cmd.Dir, cmd.WaitDelay = work, 5*time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run mvn: %w: %s", err, tail(out))
	}
	return os.Rename(libs, dir)
}

// lock takes the lock file name, waiting for it until ctx ends. It is freed by unlock, or by the end of the process.
func lock(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			return func() { _ = f.Close() }, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("wait for %s, which another process holds: %w", name, context.Cause(ctx))
		}
	}
}

// tail is the end of a program's output, for an error.
func tail(out []byte) string {
	const keep = 2000
	if len(out) > keep {
		out = out[len(out)-keep:]
	}
	return strings.TrimSpace(string(out))
}
