package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	_ "time/tzdata" // CronJob time zones

	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/component-base/cli"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register"          // --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client-go metrics
	_ "k8s.io/component-base/metrics/prometheus/version"  // build info metric
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	kubeproxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	"citadel/integration/controlplane/dns"
	"citadel/integration/controlplane/node"
	"citadel/integration/controlplane/supervisor"
)

// program is a linked program: it gets the arguments after its name, and
// returns its exit code or ends the process itself.
type program func(args []string) int

// components are the programs that a control plane consists of.
var components = map[supervisor.Component]program{
	supervisor.Etcd:              runEtcd,
	supervisor.APIServer:         runAPIServer,
	supervisor.ControllerManager: runControllerManager,
	supervisor.Scheduler:         runScheduler,
	supervisor.Node:              runFirst,
	supervisor.Containerd:        entered(supervisor.Containerd),
	supervisor.Kubelet:           entered(supervisor.Kubelet),
	supervisor.Proxy:             entered(supervisor.Proxy),
	supervisor.DNS:               entered(supervisor.DNS),
}

// insiders are the linked programs that run in a node.
var insiders = map[string]program{
	string(supervisor.Kubelet): runKubelet,
	string(supervisor.Proxy):   runProxy,
	string(supervisor.DNS):     runDNS,
}

// entered runs a component in the node whose PID file comes first.
func entered(name supervisor.Component) program {
	return func(args []string) int {
		return enter(append([]string{args[0], string(name)}, args[1:]...))
	}
}

// enter runs a program in the node whose PID file comes first.
func enter(args []string) int {
	code, err := enterNode(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailure
	}
	return code
}

func enterNode(args []string) (int, error) {
	if len(args) < 2 {
		return 0, errors.New("enter takes the file that names the node's first process, and a program")
	}
	text, err := os.ReadFile(args[0])
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("no node runs here: start one with 'up --node' (%w)", err)
	}
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", args[0], err)
	}
	return node.Enter(pid, append([]string{insideCommand}, args[1:]...))
}

// insideCommand runs a program in the node, where it is already.
const insideCommand = "inside"

// runInside runs one of the insiders, or becomes a program of the machine.
func runInside(args []string) int {
	err := node.Inside()
	if err == nil {
		if run, ok := insiders[args[0]]; ok {
			os.Args = args // clients make their user agent of it
			return run(args[1:])
		}
		err = node.Become(args)
	}
	fmt.Fprintln(os.Stderr, err)
	return exitFailure
}

// runDNS is the cluster's DNS; its arguments are a kubeconfig, the address and the
// domain.
func runDNS(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := dns.Serve(ctx, args[0], args[1], args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailure
	}
	return 0
}

// runFirst is the first process of a node.
func runFirst(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	n, err := supervisor.ParseFirst(args)
	if err == nil {
		err = n.First(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailure
	}
	return 0
}

// runSweeper removes what a node has left behind when its up is gone.
func runSweeper(args []string) int {
	lost, err := supervisor.Lifeline()
	if err == nil {
		err = supervisor.RunSweeper(lost, args)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitFailure
	}
	return 0
}

// runComponent runs a component that dies with the process that started it.
func runComponent(name supervisor.Component, args []string) int {
	lost, err := supervisor.Lifeline()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return exitFailure
	}
	os.Args = append([]string{string(name)}, args...) // clients make their user agent of it
	go func() {                                       // lives as long as the process
		<-lost
		os.Exit(exitFailure)
	}()
	return components[name](args)
}

func runEtcd(args []string) int {
	etcdmain.Main(append([]string{string(supervisor.Etcd)}, args...))
	return 0
}

func runAPIServer(args []string) int {
	command := apiserver.NewAPIServerCommand()
	command.SetArgs(args)
	return cli.Run(command)
}

func runScheduler(args []string) int {
	command := scheduler.NewSchedulerCommand()
	command.SetArgs(args)
	return cli.Run(command)
}

func runKubelet(args []string) int {
	command := kubelet.NewKubeletCommand(context.Background())
	command.SetArgs(args)
	return cli.Run(command)
}

func runProxy(args []string) int {
	command := kubeproxy.NewProxyCommand()
	command.SetArgs(args)
	return cli.Run(command)
}

func runControllerManager(args []string) int {
	command := controllermanager.NewControllerManagerCommand()
	command.SetArgs(args)
	return cli.Run(command)
}

// runKubectl runs kubectl without its plugins. Some of kubectl reads os.Args,
// so they are made to look as if it had been called by its own name.
func runKubectl(args []string) int {
	os.Args = append([]string{"kubectl"}, args...)
	_, _ = logs.GlogSetter(kubectl.GetLogVerbosity(os.Args)) // a bad -v is refused below
	command := kubectl.NewKubectlCommand(kubectl.KubectlOptions{
		Arguments: os.Args,
		IOStreams: genericiooptions.IOStreams{In: os.Stdin, Out: os.Stdout, ErrOut: os.Stderr},
	})
	command.SetArgs(args)
	if err := cli.RunNoErrOutput(command); err != nil {
		kubectlutil.CheckErr(err) // prints it and exits
	}
	return 0
}
