package cluster_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/internal/kafkatest"
)

// The doctor of three secured brokers, as a user who may do nothing, as one who may do everything, and with a broker
// that hangs: it keeps nobody waiting, and says what it could not see. Who it is comes from a context.
func TestRealDoctorSecured(t *testing.T) {
	cluster := kafkatest.Secured(t)
	admin := cluster.Cluster(kafkatest.AdminUser)
	topic := kafkatest.Topic(t, admin, 3)
	dir := t.TempDir()
	bin := filepath.Join(dir, "millrace")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../../cmd/millrace").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var contexts strings.Builder
	contexts.WriteString("contexts:\n")
	for _, user := range []string{"nobody", "shipping", kafkatest.AdminUser} {
		write(user+".txt", cluster.Password(user)+"\n")
		fmt.Fprintf(&contexts, "  %s:\n    brokers: %s\n    tls-ca: %s\n    sasl-user: %s\n    sasl-password: file:%s.txt\n", user, strings.Join(admin.Seeds, ","), cluster.CA(), user, user)
	}
	fmt.Fprintf(&contexts, "  mistaken:\n    brokers: %s\n    tls-ca: %s\n    sasl-user: nobody\n    sasl-password: file:nobody.txt\n    clusterID: another\n", strings.Join(admin.Seeds, ","), cluster.CA())
	write(".millrace.yaml", contexts.String())
	run := func(code int, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), bin, args...)
		cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "MILLRACE_REGISTRY_USER=x"}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		began := time.Now()
		err := cmd.Run()
		if took := time.Since(began); took > 12*time.Second {
			t.Errorf("millrace %v took %s", args, took)
		}
		exit, ok := errors.AsType[*exec.ExitError](err)
		if got := cmd.ProcessState.ExitCode(); err != nil && !ok || got != code {
			t.Errorf("millrace %v exits %d, want %d (%v)\n%s", args, got, code, exit, &out)
		}
		return out.String()
	}
	has := func(text string, parts ...string) {
		t.Helper()
		for _, p := range parts {
			if !strings.Contains(text, p) {
				t.Errorf("no %q in\n%s", p, text)
			}
		}
	}
	has(run(0, "doctor", "-c", "nobody"), "ok    broker        all 3 brokers answer, each at its address",
		"warn  permissions   SCRAM-SHA-512 as nobody, over TLS: the login sees no topic", "warn  disk          not seen: User:nobody has no", "warn  settings      of the brokers not seen: User:nobody")
	has(run(0, "doctor", "-c", kafkatest.AdminUser), "all 3 brokers answer", "ok    versions      Kafka v4", "ok    partitions", "ok    permissions   SCRAM-SHA-512 as admin, over TLS: of 1 topic that it sees, it may read 1, write 1, and change 1", "  disk  ")

	// Whoever has some rights is told of the others, and what would grant them.
	group := kafkatest.Name(t)
	client := kafkatest.Client(t, admin)
	var start kadm.Offsets
	start.AddOffset(topic, 0, 0, -1)
	if err := kadm.NewClient(client).CommitAllOffsets(t.Context(), group, start); err != nil {
		t.Fatal(err)
	}
	cluster.Grant("shipping", "topic "+topic, "Read", "DescribeConfigs")
	cluster.Grant("shipping", "group "+group, "Describe")
	const grant = "→ if it should:  kafka-acls.sh --add --allow-principal User:shipping "
	some := run(0, "doctor", "-c", "shipping")
	has(some, "SCRAM-SHA-512 as shipping, over TLS: of 1 topic that it sees, it may read 1, write 0, and change 0",
		"on the cluster it may not see the disks and the groups of others; what else", grant+"--operation Describe --cluster",
		"it may not publish to, change the settings of, add partitions to or delete 1 topic: "+topic,
		grant+"--operation Write --operation AlterConfigs --operation Alter --operation Delete --topic "+topic,
		"it may not join, move or delete 1 group: "+group, grant+"--operation Read --operation Delete --group "+group)
	cluster.Grant("shipping", "topic "+topic, "Write", "AlterConfigs", "Alter", "Delete") // as it said
	if again := run(0, "doctor", "-c", "shipping"); strings.Contains(again, "1 topic: "+topic) {
		t.Errorf("what was granted is still missing:\n%s", again)
	}
	if all := run(0, "doctor", "-c", kafkatest.AdminUser); strings.Contains(all, "may not") {
		t.Errorf("an admin may do everything:\n%s", all)
	}
	has(run(5, "topics", "ls", "-c", "mistaken"), "this is another cluster", `says "another"`)
	has(run(1, "doctor", "-c", "mistaken"), "bad   cluster", "this is another cluster")

	cluster.Pause(3)
	defer cluster.Resume(3)
	has(run(1, "doctor", "-c", kafkatest.AdminUser), "bad   broker", "no answer within 5s", "ok    cluster")
}
