package main

import "testing"

// A service is run with the flags of its replay as variables, and with the settings that the command has.
func TestReplayIntoAService(t *testing.T) {
	t.Parallel()
	w := replayWorld(t)
	show := "env | grep MILLRACE_ | sort"
	r := w.want(t, codeDone, "replay", "shop.orders", "--service", show, "--from", "-1h", "--id", "fix", "--speed", "10x", "--capture", "effects.jsonl", "--clock", "event")
	has(t, "stderr", r.err, "MILLRACE_BROKERS=127.0.0.1:", "MILLRACE_REGISTRY=http", "MILLRACE_REPLAY=fix\n", "MILLRACE_REPLAY_FROM=-1h\n", "MILLRACE_REPLAY_SPEED=10x\n",
		"MILLRACE_REPLAY_CAPTURE=effects.jsonl\n", "MILLRACE_REPLAY_TOPICS=shop.orders\n", "MILLRACE_REPLAY_CLOCK=event\n")
	r = w.want(t, codeDone, "replay", "--service", show, "--resume", "fix")
	has(t, "stderr", r.err, "MILLRACE_REPLAY=fix\n")
	r = w.want(t, 3, "replay", "--service", "exit 3", "--from", "start")
	has(t, "stderr", r.err, "exit code 3")
	for _, wrong := range [][]string{{"--from", "start", "--key", "o-1"}, {}, {"--from", "start", "--into", "stdout"}} {
		w.want(t, codeUsage, append([]string{"replay", "--service", "true"}, wrong...)...)
	}
	w.want(t, codeUsage, "replay", "shop.orders", "--into", "stdout", "--from", "start", "--capture", "x")
	w.want(t, codeRefused, "replay", "--service", "true", "--from", "start", "--read-only")
}
