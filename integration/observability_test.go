package integration

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

const observability = "../deploy/observability"

// ruleFile is what Prometheus reads; PrometheusRule has it as its spec.
type ruleFile struct {
	Groups []struct {
		Name  string
		Rules []struct{ Alert, Expr string }
	}
}

// ruleTests is what promtool test rules reads.
type ruleTests struct {
	Tests []struct {
		AlertRuleTest []struct {
			Alertname string
			ExpAlerts []any `json:"exp_alerts"`
		} `json:"alert_rule_test"`
	}
}

func readYAML[T any](t *testing.T, name string) (out T) {
	t.Helper()
	if err := yaml.Unmarshal(must(os.ReadFile(filepath.Join(observability, name)))(t), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// queries are the expressions of all alerts and of all panels, by their names.
func queries(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, group := range readYAML[ruleFile](t, "rules.yaml").Groups {
		for _, rule := range group.Rules {
			all["alert "+rule.Alert] = rule.Expr
		}
	}
	for name, expr := range panels(t) {
		all[name] = expr
	}
	return all
}

// panels are the dashboard's expressions.
func panels(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	dashboard := readYAML[struct {
		Panels []struct {
			Title   string
			Targets []struct{ RefID, Expr string }
		}
	}](t, "dashboard.json")
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			all["panel "+panel.Title+" "+target.RefID] = target.Expr
		}
	}
	if len(all) < 20 {
		t.Fatalf("the dashboard has %d queries", len(all))
	}
	return all
}

func TestAlertRules(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"check", "rules", "rules.yaml"}, {"test", "rules", "rules_test.yaml"}} {
		cmd := exec.CommandContext(t.Context(), "promtool", args...)
		cmd.Dir = observability
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	fires, quiet := map[string]bool{}, map[string]bool{}
	for _, test := range readYAML[ruleTests](t, "rules_test.yaml").Tests {
		for _, alert := range test.AlertRuleTest {
			fires[alert.Alertname] = fires[alert.Alertname] || len(alert.ExpAlerts) > 0
			quiet[alert.Alertname] = quiet[alert.Alertname] || len(alert.ExpAlerts) == 0
		}
	}
	for _, group := range readYAML[ruleFile](t, "rules.yaml").Groups {
		for _, rule := range group.Rules {
			if !fires[rule.Alert] || !quiet[rule.Alert] {
				t.Errorf("alert %s is tried when it fires: %v, when it does not: %v", rule.Alert, fires[rule.Alert], quiet[rule.Alert])
			}
		}
	}
}

func TestPrometheusRuleIsTheRules(t *testing.T) {
	t.Parallel()
	wrapped := readYAML[map[string]any](t, "prometheusrule.yaml")
	if rules := readYAML[map[string]any](t, "rules.yaml"); !reflect.DeepEqual(wrapped["spec"], rules) {
		t.Error("prometheusrule.yaml has other rules than rules.yaml: put these below its spec")
	}
}

// The component brings the rules and the dashboard to where the Prometheus
// Operator and Grafana's sidecar find them.
func TestObservabilityIsAComponent(t *testing.T) {
	t.Parallel()
	text := render(t, "web", "servicemonitor", "../observability")
	if !strings.Contains(text, "kind: PrometheusRule") {
		t.Error("there is no PrometheusRule")
	}
	dashboard := only[*corev1.ConfigMap](t, text, "istio-citadel-dashboard")
	want := string(must(os.ReadFile(filepath.Join(observability, "dashboard.json")))(t))
	if dashboard.Namespace != "istio-system" || dashboard.Labels["grafana_dashboard"] != "1" || dashboard.Data["dashboard.json"] != want {
		t.Errorf("dashboard in %s with labels %v", dashboard.Namespace, dashboard.Labels)
	}
}

var (
	// noMetrics are the parts of an expression that name labels, not metrics.
	noMetrics = regexp.MustCompile(`\{[^}]*\}|\[[^\]]*\]|"[^"]*"|\b(by|without|on|ignoring)\s*\([^)]*\)`)
	gap       = regexp.MustCompile(`\s+\(`)
	words     = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*\(?`)
)

// metricsOf are the metrics that an expression asks for.
func metricsOf(expr string) []string {
	var names []string
	for _, word := range words.FindAllString(gap.ReplaceAllString(noMetrics.ReplaceAllString(expr, " "), "("), -1) {
		if !strings.HasSuffix(word, "(") && !slices.Contains([]string{"and", "or", "unless", "by", "on"}, word) {
			names = append(names, word)
		}
	}
	return names
}

func TestMetricsOfExpressions(t *testing.T) {
	t.Parallel()
	for expr, want := range map[string]string{
		`sum by (a) (rate(x_total{b="c d"}[5m])) > 5 * 60`:     "[x_total]",
		`a{b="c"} and on (instance) d or vector(0)`:            "[a d]",
		`time() - min by (n) (z) > 600`:                        "[z]",
		`histogram_quantile(0.5, sum by (le) (rate(q[$__i])))`: "[q]",
	} {
		if got := fmt.Sprint(metricsOf(expr)); got != want {
			t.Errorf("%s asks for %s, want %s", expr, got, want)
		}
	}
}

// Alerts and panels ask for what a citadel shows, and a Prometheus that watches
// one can answer each of them and raises no alert.
func TestAlertsAndDashboardFitACitadel(t *testing.T) {
	t.Parallel()
	_, p, _ := populated(t)
	_, ofPolicy, err := startAlone(t, filepath.Join(t.TempDir(), "state"), "--policy").Get(t.Context(), "/metrics")
	if err != nil {
		t.Error(err)
	}
	page := "\n" + p.answers(t, "/metrics", http.StatusOK) + "\n" + ofPolicy
	for name, expr := range queries(t) {
		for _, metric := range metricsOf(expr) {
			if metric != "up" && !strings.Contains(page, "\n"+metric+" ") && !strings.Contains(page, "\n"+metric+"{") {
				t.Errorf("%s asks for %s, which citadel does not show", name, metric)
			}
		}
	}
	server := startPrometheus(t, p)
	for name, expr := range panels(t) {
		within(t, patience, func() error { return server.answers(t, name, expr) })
	}
	within(t, patience, func() error { return server.quiet(t) })
}

// prometheus is one that watches a Citadel, by its address.
type prometheus string

func startPrometheus(t *testing.T, p *process) prometheus {
	t.Helper()
	dir, rules := t.TempDir(), must(filepath.Abs(filepath.Join(observability, "rules.yaml")))(t)
	config := fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: [%q]
scrape_configs:
- job_name: istio-citadel
  static_configs:
  - {targets: ["127.0.0.1:%d"], labels: {namespace: istio-system}}
`, rules, p.Port)
	listener := must((&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0"))(t)
	address := listener.Addr().String()
	_ = listener.Close() // it makes room
	cmd := exec.Command("prometheus", "--config.file", writeFile(t, "prometheus.yml", []byte(config)), "--storage.tsdb.path", dir,
		"--web.listen-address", address, "--log.level", "error")
	log := &strings.Builder{}
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start prometheus: %v: install Debian's package of that name", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // an error means that it has ended
		if _ = cmd.Wait(); t.Failed() {
			t.Logf("prometheus says:\n%s", log)
		}
	})
	return prometheus("http://" + address)
}

// get reads a page of its API.
func (p prometheus) get(t *testing.T, page string, into any) error {
	t.Helper()
	req := must(http.NewRequestWithContext(t.Context(), http.MethodGet, string(p)+page, nil))(t)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return errors.Join(err, json.Unmarshal(text, into))
}

// answers is nil when the query of a panel has a result.
func (p prometheus) answers(t *testing.T, name, expr string) error {
	t.Helper()
	expr = strings.NewReplacer("$namespace", ".*", "$__rate_interval", "1m").Replace(expr)
	var answer struct{ Data struct{ Result []any } }
	err := p.get(t, "/api/v1/query?query="+url.QueryEscape(expr), &answer)
	if err != nil || len(answer.Data.Result) == 0 {
		return fmt.Errorf("%s: %s has %d results (%v)", name, expr, len(answer.Data.Result), err)
	}
	return nil
}

// quiet is nil when all alerts were looked at and none is on its way.
func (p prometheus) quiet(t *testing.T) error {
	t.Helper()
	var answer struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, State, Health, LastError string }
			}
		}
	}
	err, seen := p.get(t, "/api/v1/rules", &answer), 0
	for _, group := range answer.Data.Groups {
		for _, rule := range group.Rules {
			if seen++; rule.Health != "ok" || rule.State != "inactive" {
				err = errors.Join(err, fmt.Errorf("alert %s is %s, and %s %s", rule.Name, rule.State, rule.Health, rule.LastError))
			}
		}
	}
	if seen == 0 {
		err = errors.Join(err, errors.New("there are no alerts"))
	}
	return err
}
