package pods

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// mesh is the namespace of the workloads, and of all service accounts.
const mesh = "mesh"

// workloads call each other, each every other, ten times a second.
var workloads = []string{"caller", "sleep", "httpbin"}

// accounts is how many service accounts the mesh has beside the workloads'.
const accounts = 300

func accountName(i int) string { return fmt.Sprintf("account-%03d", i) }

// startTraffic makes the mesh, and returns when its workloads run.
func startTraffic(ctx context.Context) error {
	core := plane.Client.CoreV1()
	if _, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: mesh}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	for i := range accounts {
		if err := makeAccount(ctx, accountName(i)); err != nil {
			return err
		}
	}
	for _, name := range workloads {
		if err := makeAccount(ctx, name); err != nil {
			return err
		}
		_, err := core.Services(mesh).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Port: 8443}}}}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
	}
	for _, name := range workloads {
		var peers []string
		for _, other := range workloads {
			if other != name {
				peers = append(peers, other+"."+mesh+":8443")
			}
		}
		if _, err := core.Pods(mesh).Create(ctx, workload(name, peers), metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return awaitTraffic(ctx)
}

func makeAccount(ctx context.Context, name string) error {
	_, err := plane.Client.CoreV1().ServiceAccounts(mesh).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return err
}

// workload is a pod with the Secret of its service account.
func workload(name string, peers []string) *corev1.Pod {
	group, mode := int64(65532), int32(0o440)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			ServiceAccountName: name,
			SecurityContext:    &corev1.PodSecurityContext{FSGroup: &group},
			Containers: []corev1.Container{{
				Name: "workload", Image: "workload:latest", ImagePullPolicy: corev1.PullNever,
				Args:         []string{"-peers", strings.Join(peers, ",")},
				VolumeMounts: []corev1.VolumeMount{{Name: "certs", MountPath: "/etc/certs", ReadOnly: true}},
				// Once ready it stays so: what is tested is Citadel, not how soon a busy machine
				// answers a probe.
				ReadinessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(8080)}},
					PeriodSeconds: 1, TimeoutSeconds: 30, FailureThreshold: 100},
			}},
			Volumes: []corev1.Volume{{Name: "certs", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "istio." + name, DefaultMode: &mode}}}},
		},
	}
}

// awaitTraffic returns when every workload has called its peers in vain no more,
// which it does while their services come up.
func awaitTraffic(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last counts
	for steady := 0; steady < 20; {
		now, err := traffic(ctx)
		if err == nil && now.Failed == last.Failed && now.OK > last.OK {
			steady++
		} else {
			steady = 0
		}
		last = now
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("wait for traffic: %w (%+v)", errors.Join(context.Cause(ctx), err), now)
		}
	}
	return nil
}

// counts are what workloads tell of their calls, as far as tests want to know.
type counts struct {
	OK, Failed, Loads int
	Errors            []string
}

// traffic is what all workloads have counted together.
func traffic(ctx context.Context) (all counts, err error) {
	for _, name := range workloads {
		text, err := plane.Client.CoreV1().RESTClient().Get().Namespace(mesh).Resource("pods").Name(name + ":8080").SubResource("proxy").DoRaw(ctx)
		if err != nil {
			return counts{}, fmt.Errorf("ask workload %s: %w", name, err)
		}
		var one counts
		if err := json.Unmarshal(text, &one); err != nil {
			return counts{}, fmt.Errorf("ask workload %s: %w", name, err)
		}
		all.OK, all.Failed, all.Loads = all.OK+one.OK, all.Failed+one.Failed, all.Loads+one.Loads
		all.Errors = append(all.Errors, one.Errors...)
	}
	return all, nil
}
