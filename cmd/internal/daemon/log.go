package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"k8s.io/klog/v2"
)

// NewLogger returns a logger that writes text or JSON, and makes the one of
// Kubernetes' libraries write to it too.
func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: use debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: least}
	var handler slog.Handler
	switch format {
	case "text":
		handler = slog.NewTextHandler(w, opts)
	case "json":
		handler = slog.NewJSONHandler(w, opts)
	default:
		return nil, fmt.Errorf("log format %q: use text or json", format)
	}
	log := slog.New(handler)
	klog.SetSlogLogger(slog.New(libraries{handler}).With("from", "kubernetes"))
	return log, nil
}

// verbosity is the most that Kubernetes' libraries say, as klog counts: above
// V(2) they tell of every event and request, which drowns our own debug lines.
const verbosity = 2

// libraries is a handler for them: their V(n) is slog's level -n.
type libraries struct{ slog.Handler }

// Enabled is of slog.Handler.
func (l libraries) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= -verbosity && l.Handler.Enabled(ctx, level)
}

// WithAttrs is of slog.Handler.
func (l libraries) WithAttrs(attrs []slog.Attr) slog.Handler {
	return libraries{l.Handler.WithAttrs(attrs)}
}

// WithGroup is of slog.Handler.
func (l libraries) WithGroup(name string) slog.Handler { return libraries{l.Handler.WithGroup(name)} }
