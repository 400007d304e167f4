package secret_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/millrace/millrace/internal/secret"
)

const text = "correct horse battery staple"

type holder struct {
	Shown  secret.String
	hidden secret.String
	ptr    *secret.String
}

func TestNoFormatShowsTheText(t *testing.T) {
	t.Parallel()
	s := secret.New(text)
	h := holder{Shown: s, hidden: s, ptr: &s}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%c", "%p", "%T", "%10s", "%-40v", "% x", "%08.3f"} {
		for name, v := range map[string]any{
			"value": s, "pointer": &s, "struct": h, "struct pointer": &h, "slice": []secret.String{s},
			"map": map[string]secret.String{"k": s}, "array": [1]holder{h}, "any": any(s),
		} {
			if got := fmt.Sprintf(verb, v); leaks(got) {
				t.Errorf("Sprintf(%q) of a %s shows it: %s", verb, name, got)
			}
		}
		if got := fmt.Sprintf(verb, s); verb != "%T" && verb != "%p" && got != "***" {
			t.Errorf("Sprintf(%q) = %q, want ***", verb, got)
		}
	}
	for name, got := range map[string]string{
		"Sprint": fmt.Sprint(s), "Sprintln": strings.TrimSpace(fmt.Sprintln(s)), "String": s.String(),
		"concatenated error": errors.Join(fmt.Errorf("log in: %v", s)).Error()[len("log in: "):],
	} {
		if got != "***" {
			t.Errorf("%s = %q, want ***", name, got)
		}
	}
}

func TestNoEncodingShowsTheText(t *testing.T) {
	t.Parallel()
	s := secret.New(text)
	raw, err := json.Marshal(map[string]any{"a": s, "b": &s, "c": holder{Shown: s, hidden: s}, "d": map[secret.String]int{s: 1}})
	if err != nil {
		t.Fatal(err)
	}
	if leaks(string(raw)) || strings.Count(string(raw), `"***"`) != 4 {
		t.Errorf("JSON: %s", raw)
	}
	if raw, err = s.MarshalText(); err != nil || string(raw) != "***" {
		t.Errorf("MarshalText = %q, %v", raw, err)
	}
	for name, enc := range map[string]zapcore.Encoder{
		"json":    zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()),
		"console": zapcore.NewConsoleEncoder(zap.NewDevelopmentEncoderConfig()),
	} {
		var out strings.Builder
		log := zap.New(zapcore.NewCore(enc, zapcore.AddSync(&out), zap.DebugLevel))
		log.Info("login", zap.Any("any", s), zap.Stringer("stringer", s), zap.Reflect("holder", holder{Shown: s, hidden: s}))
		log.Sugar().Infow("login", "password", s, "pointer", &s)
		if got := out.String(); leaks(got) || !strings.Contains(got, "***") {
			t.Errorf("zap %s: %s", name, got)
		}
	}
}

func TestReveal(t *testing.T) {
	t.Parallel()
	if s := secret.New(text); s.Reveal() != text || s.IsZero() {
		t.Errorf("Reveal() = %q, IsZero() = %t", s.Reveal(), s.IsZero())
	}
	for name, s := range map[string]secret.String{"zero value": {}, "empty text": secret.New("")} {
		if s.Reveal() != "" || !s.IsZero() || fmt.Sprintf("%v%q%#v", s, s, s) != "" {
			t.Errorf("%s: %q, %v", name, s.Reveal(), s)
		}
	}
}

// leaks reports whether got holds the text or its hexadecimal form.
func leaks(got string) bool {
	hex := fmt.Sprintf("%x", text)
	got = strings.ToLower(got)
	return strings.Contains(got, text) || strings.Contains(strings.ReplaceAll(got, " ", ""), hex)
}
