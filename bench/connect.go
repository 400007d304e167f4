package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace/millrace/kafka"
)

// The peer of the sinks into PostgreSQL: Kafka Connect standalone with Debezium's JDBC sink, which writes at least once.
const (
	connectVersion  = "4.3.1"
	debeziumVersion = "3.3.1.Final"
	avroVersion     = "1.12.0"
	connectHeap     = "-Xmx1g"
	connectTasks    = connections
	// connectStart bounds the start of its Java process, which is not measured.
	connectStart = 90 * time.Second
)

const connectPOM = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>millrace</groupId><artifactId>connect</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>connect-runtime</artifactId><version>` + connectVersion + `</version></dependency>
    <dependency><groupId>org.apache.avro</groupId><artifactId>avro</artifactId><version>` + avroVersion + `</version></dependency>
  </dependencies>
</project>
`

// converter is what a registry's Avro converter does, without the registry: the peer has less to do than in earnest.
//
//go:embed connect/RowConverter.java
var converter []byte

// connectHome is a folder with Connect's jars in libs, the plugin in plugin/debezium-connector-jdbc and the converter in classes,
// fetched by Maven once and kept in the user's cache.
func connectHome(ctx context.Context) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	home := filepath.Join(cache, "millrace", "connect-"+connectVersion+"-"+debeziumVersion)
	if _, err := os.Stat(home); err == nil {
		return home, nil
	}
	if err := os.MkdirAll(filepath.Dir(home), 0o750); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(filepath.Dir(home), "fetch-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), []byte(connectPOM), 0o600); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(work, "RowConverter.java"), converter, 0o600); err != nil {
		return "", err
	}
	if err := os.Mkdir(filepath.Join(work, "plugin"), 0o750); err != nil {
		return "", err
	}
	for _, argv := range [][]string{
		{"mvn", "-B", "-q", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=libs"},
		{"mvn", "-B", "-q", "dependency:copy", "-Dartifact=io.debezium:debezium-connector-jdbc:" + debeziumVersion + ":tar.gz:plugin", "-DoutputDirectory=."},
		{"tar", "xzf", "debezium-connector-jdbc-" + debeziumVersion + "-plugin.tar.gz", "-C", "plugin"},
		{"javac", "-cp", "libs/*", "-d", "classes", "RowConverter.java"},
	} {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Dir, cmd.WaitDelay = work, 5*time.Second
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("run %s: %w: %s", argv[0], err, strings.TrimSpace(string(out)))
		}
	}
	// Jackson comes with Connect, in one version.
	jackson, err := filepath.Glob(filepath.Join(work, "plugin", "debezium-connector-jdbc", "jackson-*.jar"))
	if err != nil {
		return "", err
	}
	for _, jar := range jackson {
		if err := os.Remove(jar); err != nil {
			return "", err
		}
	}
	return home, os.Rename(work, home)
}

// connect lets the peer write topic's n records into table and takes the time from the first row to the last.
func connect(ctx context.Context, c kafka.Cluster, pool *pgxpool.Pool, topic, table, mode string, n int, k *clock) error {
	home, err := connectHome(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "millrace-connect-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	cmd, err := startConnect(ctx, home, dir, c, pool, topic, table, mode)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() {
		_ = cmd.Process.Kill()
		<-ended //nolint:errcheck // it was killed
	}()
	err = watchRows(ctx, pool, table, mode, n, cmd.Process.Pid, ended, k)
	if err != nil {
		text, _ := os.ReadFile(filepath.Join(dir, "log"))
		err = fmt.Errorf("connect: %w: %s", err, text[max(0, len(text)-4000):])
	}
	return err
}

func startConnect(ctx context.Context, home, dir string, c kafka.Cluster, pool *pgxpool.Pool, topic, table, mode string) (*exec.Cmd, error) {
	db := pool.Config().ConnConfig
	worker := map[string]string{
		"bootstrap.servers": strings.Join(c.Seeds, ","), "listeners": "http://127.0.0.1:0", "plugin.path": filepath.Join(home, "plugin"),
		"plugin.discovery": "only_scan", "offset.storage.file.filename": filepath.Join(dir, "offsets"), "offset.flush.interval.ms": "1000",
		"key.converter": "org.apache.kafka.connect.storage.StringConverter", "value.converter": "bench.RowConverter", "value.converter.avro": orderSchema,
		"consumer.max.poll.records": "5000", "consumer.fetch.max.bytes": "16777216", "consumer.max.partition.fetch.bytes": "4194304",
		"consumer.auto.offset.reset": "earliest", "consumer.isolation.level": "read_committed",
	}
	connector := map[string]string{
		"name": group("connect"), "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector", "tasks.max": strconv.Itoa(connectTasks), "topics": topic,
		"connection.url":      fmt.Sprintf("jdbc:postgresql://%s:%d/%s?reWriteBatchedInserts=true", db.Host, db.Port, db.Database),
		"connection.username": db.User, "connection.password": db.Password, "insert.mode": mode, "primary.key.mode": "none",
		"schema.evolution": "none", "collection.name.format": table, "batch.size": "5000", "connection.pool.max_size": strconv.Itoa(connectTasks),
	}
	if mode == "upsert" {
		connector["primary.key.mode"], connector["primary.key.fields"], connector["use.reduction.buffer"] = "record_value", "order_id", "true"
	}
	args := []string{connectHeap, "-cp", filepath.Join(home, "libs", "*") + string(os.PathListSeparator) + filepath.Join(home, "classes"), "org.apache.kafka.connect.cli.ConnectStandalone"}
	for name, p := range map[string]map[string]string{"worker": worker, "connector": connector} {
		var b strings.Builder
		for key, v := range p {
			fmt.Fprintf(&b, "%s=%s\n", key, strings.ReplaceAll(v, `\`, `\\`))
		}
		if err := os.WriteFile(filepath.Join(dir, name+".properties"), []byte(b.String()), 0o600); err != nil {
			return nil, err
		}
	}
	args = append(args, filepath.Join(dir, "worker.properties"), filepath.Join(dir, "connector.properties"))
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }()
	cmd := exec.CommandContext(ctx, "java", args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = dir, log, log, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start Kafka Connect: %w", err)
	}
	return cmd, nil
}

// watchRows starts the clock at the first row and stops it at the last. It looks five times a second: a look costs the
// database a few milliseconds.
func watchRows(ctx context.Context, pool *pgxpool.Pool, table, mode string, n, pid int, ended <-chan error, k *clock) error {
	ctx, cancel := context.WithTimeout(ctx, connectStart+3*time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	want, all := n, "SELECT count(*) FROM "+table
	if mode == "upsert" { // every order is inserted, and then updated
		want, all = n/2, all+" WHERE status = '"+paid+"'"
	}
	var began time.Duration
	for first := true; ; {
		select {
		case err := <-ended:
			return errors.Join(errors.New("it ended"), err)
		case <-ctx.Done():
			return fmt.Errorf("wait for %d rows in %s: %w", want, table, ctx.Err())
		case <-tick.C:
		}
		question := all
		if first {
			question = "SELECT count(*) FROM (SELECT 1 FROM " + table + " LIMIT 1) x"
		}
		var got int
		if err := pool.QueryRow(ctx, question).Scan(&got); err != nil {
			return err
		}
		switch {
		case first && got > 0:
			first, began = false, processTime(pid)
			k.start()
		case !first && got >= want:
			k.stop()
			k.took1CPU = processTime(pid) - began
			return nil
		}
	}
}

// processTime is the CPU time that another process has used.
func processTime(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime, in hundredths of a second
		v, _ := strconv.ParseInt(f, 10, 64)
		ticks += v
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
