package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"citadel/integration/controlplane/node"
)

// Enter is the command of this binary that runs a program inside a node: its
// arguments are the node's PID file and the program with its own.
const Enter = "enter"

// ImportImage gives the node whose first process the file names the images of an
// archive.
func ImportImage(ctx context.Context, pidFile string, archive io.Reader) error {
	command := exec.CommandContext(ctx, "/proc/self/exe", append([]string{Enter, pidFile}, node.ImportArgs()...)...)
	var out bytes.Buffer
	command.Stdin, command.Stdout, command.Stderr = archive, &out, &out
	if err := command.Run(); err != nil {
		return fmt.Errorf("import images: %w: %s", err, strings.TrimSpace(out.String()))
	}
	return nil
}

// LoadImage gives the node of the cluster that runs on dir the images of an
// archive.
func LoadImage(ctx context.Context, dir string, archive io.Reader) error {
	l, err := newLayout(dir)
	if err != nil {
		return err
	}
	return ImportImage(ctx, node.New(nodeName, l.nodeDir(), node.Link{}).PIDFile(), archive)
}
