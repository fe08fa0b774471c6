package main

import (
	"fmt"
	"os"
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
