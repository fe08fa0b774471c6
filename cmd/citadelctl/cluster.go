package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	_ "k8s.io/client-go/plugin/pkg/client/auth/oidc" // as kubectl, for kubeconfigs that use it
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"citadel/ca/kube"
	"citadel/cmd/internal/daemon"
)

// clusterFlags say which cluster to look at, as kubectl's do.
type clusterFlags struct {
	kubeconfig, context string
	timeout             time.Duration
}

func (f *clusterFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "kubeconfig `file`; empty: those of $KUBECONFIG, else ~/.kube/config")
	flags.StringVar(&f.context, "context", "", "`name` of the context in the kubeconfig; empty: the current one")
	flags.DurationVar(&f.timeout, "request-timeout", 30*time.Second, "how long to wait for an answer of the API server; 0: for ever")
}

// cluster is a cluster to look at.
type cluster struct {
	client    kubernetes.Interface
	custom    dynamic.Interface // kinds of CRDs
	server    string            // for messages
	namespace string            // the context's
	clock     *serverClock
}

// noCluster is that there is no kubeconfig.
type noCluster struct{ error }

// connect prepares to talk to the API server, and does not talk to it yet. Its
// errors are about the kubeconfig.
func (f *clusterFlags) connect() (*cluster, error) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // what failed is told once, in our words
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	config := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: f.context})
	rest, err := config.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, codedError{exitUsage, noCluster{fmt.Errorf("no cluster to look at: there is no kubeconfig in %v: give --kubeconfig FILE or set KUBECONFIG", rules.GetLoadingPrecedence())}}
	}
	if err != nil {
		return nil, codedError{exitUsage, fmt.Errorf("read the kubeconfig: %w: check --kubeconfig, KUBECONFIG and --context", err)}
	}
	namespace, _, err := config.Namespace()
	if err != nil {
		return nil, codedError{exitUsage, fmt.Errorf("read the namespace of the context: %w: give --namespace", err)}
	}
	rest.UserAgent = "citadelctl/" + daemon.BuildVersion().Version
	rest.Timeout = f.timeout
	rest.QPS = -1
	rest.ContentType = runtime.ContentTypeProtobuf
	rest.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	clock := &serverClock{}
	rest.Wrap(clock.listen)
	client, err := kube.Client(rest)
	if err != nil {
		return nil, codedError{exitUsage, fmt.Errorf("use the kubeconfig: %w", err)}
	}
	custom, err := kube.CustomClient(rest)
	if err != nil {
		return nil, codedError{exitUsage, fmt.Errorf("use the kubeconfig: %w", err)}
	}
	return &cluster{client: client, custom: custom, server: rest.Host, namespace: namespace, clock: clock}, nil
}
