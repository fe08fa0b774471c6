package supervisor

import (
	"encoding/base64"
	"fmt"
	"os"
)

// kubeconfigText takes the server's address and CA, and the user's name,
// certificate and key. The last three files are part of the text, so that it can
// be copied anywhere.
const kubeconfigText = `apiVersion: v1
kind: Config
clusters:
- name: controlplane
  cluster:
    server: https://%[1]s
    certificate-authority-data: %[3]s
users:
- name: %[2]s
  user:
    client-certificate-data: %[4]s
    client-key-data: %[5]s
contexts:
- name: controlplane
  context:
    cluster: controlplane
    user: %[2]s
current-context: controlplane
`

// writeKubeconfig writes the access of one of the cluster's client certificates.
func writeKubeconfig(l layout, p ports, user, path string) error {
	var encoded [3]string
	for i, file := range []string{l.certificate(caName), l.certificate(user), l.key(user)} {
		data, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("write the kubeconfig of %s: %w", user, err)
		}
		encoded[i] = base64.StdEncoding.EncodeToString(data)
	}
	text := fmt.Sprintf(kubeconfigText, loopback(p.APIServer), user, encoded[0], encoded[1], encoded[2])
	return replaceFile(path, []byte(text))
}
