package tutorial

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Trouble is what people look at where something went wrong: pods, events, and
// what sidecars and citadel said last.
func (w *World) Trouble(ctx context.Context) string {
	if w == nil || w.plane == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var all strings.Builder
	for _, args := range [][]string{
		{"get", "pods", "--all-namespaces", "-o", "wide"},
		{"get", "events", "--all-namespaces", "--field-selector=type!=Normal"},
		{"logs", "-n", "istio-system", "-l", "istio=citadel", "--tail=15"},
		{"logs", "-n", "default", "deploy/sleep", "-c", "istio-proxy", "--tail=25"},
		{"logs", "-n", "default", "deploy/httpbin", "-c", "istio-proxy", "--tail=25"},
		{"logs", "-n", "default", "deploy/sleep", "-c", "citadel-redirect", "--tail=25"},
	} {
		out, err := w.kubectl(ctx, args...)
		fmt.Fprintf(&all, "$ kubectl %s\n%s", quoted(args), out)
		if err != nil {
			fmt.Fprintln(&all, err)
		}
	}
	if w.host != nil {
		all.WriteString(w.host.Journal())
	}
	return all.String()
}
