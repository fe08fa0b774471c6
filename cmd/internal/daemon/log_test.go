package daemon

import (
	"encoding/json"
	"log/slog"
	"strconv"
	"strings"
	"testing"

	"k8s.io/klog/v2"
)

func TestNewLogger(t *testing.T) {
	t.Cleanup(func() { klog.SetSlogLogger(slog.New(slog.DiscardHandler)) })
	for name, c := range map[string]struct {
		format, level string
		lines         int
	}{
		"text, info": {"text", "info", 3}, "text, debug": {"text", "debug", 4}, "text, warn": {"text", "warn", 2},
		"text, error": {"text", "error", 1}, "json, info": {"json", "info", 3}, "upper case": {"json", "INFO", 3},
	} {
		var out strings.Builder
		log, err := NewLogger(&out, c.format, c.level)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		log.Debug("a", "k", "v")
		log.Info("b", "k", "v")
		log.Warn("c", "k", "v")
		log.Error("d", "k", "v")
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != c.lines {
			t.Errorf("%s: wrote %q", name, lines)
		}
		for _, line := range lines {
			isJSON := json.Valid([]byte(line))
			if isJSON != (c.format == "json") || !strings.Contains(line, "v") {
				t.Errorf("%s: wrote %q", name, line)
			}
		}
	}
}

// TestLibrariesWriteToTheSameLog: what client-go says is one stream with what
// we say, and can be told from it.
func TestLibrariesWriteToTheSameLog(t *testing.T) {
	t.Cleanup(func() { klog.SetSlogLogger(slog.New(slog.DiscardHandler)) })
	var out strings.Builder
	if _, err := NewLogger(&out, "json", "info"); err != nil {
		t.Fatal(err)
	}
	klog.Background().Info("lease is ours", "name", "istio-citadel")
	klog.Flush()
	var line map[string]any
	if err := json.Unmarshal([]byte(out.String()), &line); err != nil || line["msg"] != "lease is ours" || line["from"] != "kubernetes" || line["name"] != "istio-citadel" {
		t.Errorf("wrote %q (%v)", out.String(), err)
	}
}

// TestLibrariesAreBrief: at level debug they say no more than V(2).
func TestLibrariesAreBrief(t *testing.T) {
	t.Cleanup(func() { klog.SetSlogLogger(slog.New(slog.DiscardHandler)) })
	for level, want := range map[string]string{"debug": "0 1 2", "info": "0"} {
		var out strings.Builder
		log, err := NewLogger(&out, "json", level)
		if err != nil {
			t.Fatal(err)
		}
		for v := range 8 {
			klog.Background().WithValues("a", 1).WithName("b").V(v).Info(strconv.Itoa(v))
		}
		klog.Flush()
		var said []string
		for text := range strings.Lines(out.String()) {
			var line struct{ Msg string }
			if err := json.Unmarshal([]byte(text), &line); err != nil {
				t.Errorf("%q: %v", text, err)
			}
			said = append(said, line.Msg)
		}
		if got := strings.Join(said, " "); got != want {
			t.Errorf("%s: they say V(%s), want V(%s)", level, got, want)
		}
		if log.Enabled(t.Context(), slog.LevelDebug) != (level == "debug") {
			t.Errorf("%s: our own debug lines are mistaken for theirs", level)
		}
	}
}

func TestNewLoggerRefuses(t *testing.T) {
	for name, c := range map[string]struct{ format, level, text string }{
		"format":    {"xml", "info", `log format "xml": use text or json`},
		"no format": {"", "info", `log format ""`},
		"level":     {"text", "loud", `log level "loud": use debug, info, warn or error`},
		"no level":  {"text", "", `log level ""`},
	} {
		if _, err := NewLogger(nil, c.format, c.level); err == nil || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
