package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"citadel/integration/cluster"
)

// churn is how long all that can change does, under requests.
const churn = time.Minute

// TestNoRequestFailsWhileAllChanges: requests through two agents, on connections
// that last and on new ones, while certificates rotate every 2 s, the policy
// turns between STRICT and PERMISSIVE each second, and citadel restarts twice.
func TestNoRequestFailsWhileAllChanges(t *testing.T) {
	t.Parallel()
	e := newEnforced(t)
	direct := fmt.Sprintf("%s:%d", addressOfServer, e.port)
	server := e.join(t, "mesh", "httpbin", fmt.Sprintf(`{inbound: [{listen: "%s", app: "%s"}]}`, direct, e.app.Listener.Addr()))
	port := must(cluster.FreePort())(t)
	client := e.join(t, "vm", "sleep", fmt.Sprintf(`{outbound: [{listen: "127.0.0.1:%d", to: "httpbin.mesh:8000"}]}`, port))
	fixed := fmt.Sprintf("http://127.0.0.1:%d", port)
	if _, err := get(fixed + "/first"); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), churn)
	defer cancel()
	var all sync.WaitGroup
	var lasting, fresh, open, shut atomic.Int64
	for range 2 {
		all.Go(func() { keepAsking(ctx, t, &lasting, &http.Client{Transport: &http.Transport{}}, fixed) })
		all.Go(func() {
			keepAsking(ctx, t, &fresh, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, fixed)
		})
	}
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	all.Go(func() { // who speaks plain text sees the policy turn
		each(ctx, 50*time.Millisecond, func(int) {
			if resp, err := plain.Get("http://" + direct + "/plain"); err == nil {
				resp.Body.Close()
				open.Add(1)
			} else {
				shut.Add(1)
			}
		})
	})
	all.Go(func() {
		each(ctx, time.Second, func(i int) { e.policy(t, []string{"PERMISSIVE", "STRICT"}[i%2], "") })
	})
	before := [2]string{serialOf(t, server), serialOf(t, client)}
	var renewed atomic.Int64
	for _, a := range []*carrier{server, client} {
		all.Go(func() {
			each(ctx, 2*time.Second, func(int) {
				if exec.CommandContext(ctx, nodeAgent, "renew", "--control-socket", a.host.path("run", "control.sock")).Run() == nil {
					renewed.Add(1) // it fails while citadel is away
				}
			})
		})
	}
	all.Go(func() {
		each(ctx, churn/3, func(i int) {
			if i == 0 {
				return
			}
			if err := e.citadel.Stop(); err != nil {
				t.Errorf("stop citadel: %v", err)
			}
			e.citadel = startAlone(t, e.state, "--policy", "--grpc-port", strconv.Itoa(e.citadel.APIPort))
		})
	})
	all.Wait()
	t.Logf("%d requests on lasting connections, %d on new ones, none failed unless said; plain text: %d let in, %d reset; %d renewals", lasting.Load(), fresh.Load(), open.Load(), shut.Load(), renewed.Load())
	if turns := int64(churn / (10 * time.Second)); open.Load() < turns || shut.Load() < turns || lasting.Load() == 0 || fresh.Load() == 0 {
		t.Error("the policy did not turn, or nothing was asked")
	}
	if after := [2]string{serialOf(t, server), serialOf(t, client)}; after[0] == before[0] || after[1] == before[1] || renewed.Load() < int64(churn/(4*time.Second)) {
		t.Errorf("certificates %v, after %d renewals %v", before, renewed.Load(), after)
	}
}

// keepAsking goes on until ctx ends; each answer must come, and be right.
func keepAsking(ctx context.Context, t *testing.T, count *atomic.Int64, client *http.Client, url string) {
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		path := fmt.Sprintf("/%d", count.Add(1))
		resp, err := client.Get(url + path)
		if err != nil {
			t.Errorf("request %s: %v", path, err)
			return
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || string(body) != path {
			t.Errorf("request %s: %s, %q, %v", path, resp.Status, body, err)
			return
		}
	}
}

// each does something at once and then every so often, until ctx ends.
func each(ctx context.Context, every time.Duration, do func(i int)) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for i := 0; ; i++ {
		do(i)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func serialOf(t *testing.T, c *carrier) string {
	t.Helper()
	status, err := c.status(t)
	if err != nil {
		t.Error(err)
	}
	return status.Serial
}
