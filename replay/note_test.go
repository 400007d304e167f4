package replay

import (
	"strings"
	"testing"
	"time"
)

// What a commit holds is bounded by the broker, and grows while a replay runs: a note that was taken at the start must fit
// at the end.
func TestANoteThatIsTakenFitsToTheEnd(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC()
	const most = 1<<63 - 1
	last := head{
		Owner: owner{random(8), strings.Repeat("h", 64), 1 << 22, strings.Repeat("m", 80)}, Lease: now, Begun: now, Parts: 1 << 20, Grant: maxWindow,
		Counts:  Counts{most, most, most, most, most, most},
		Repeats: most, Gone: most, Since: now, Before: now, Set: random(12), Uncommitted: true, Done: true,
	}
	for name, note := range map[string]string{
		"plain":    strings.Repeat("x", maxNote),
		"quoted":   strings.Repeat(`"`, maxNote/2-1),
		"a filter": strings.Repeat(`a>b&&`, 300),
		"quotes":   strings.Repeat(`"`, maxNote),
		"control":  strings.Repeat("\x01", maxNote),
	} {
		if (Config{Note: note, Keys: 1, Window: 1}).validate() != nil {
			continue // refused before anything begins
		}
		h := last
		h.Note = note
		text, err := mark{Version: 1, From: most, Until: most, Head: &h}.text()
		if err != nil || len(text) > maxMetadata {
			t.Errorf("%s: %v, %d bytes", name, err, len(text))
		}
	}
	if err := (Config{Note: strings.Repeat("a>b&&", 300), Keys: 1, Window: 1}).validate(); err != nil {
		t.Errorf("a long filter is refused: %v", err)
	}
}
