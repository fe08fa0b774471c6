package hosts

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"
)

// serving has nginx ask for certificates of the mesh, and show its own.
const serving = `server {
	listen 443 ssl;
	server_name ` + serverName + `;
	ssl_certificate /etc/certs/cert-chain.pem;
	ssl_certificate_key /etc/certs/key.pem;
	ssl_client_certificate /etc/certs/root-cert.pem;
	ssl_verify_client on;
	location / { return 200 "hello from nginx to $ssl_client_verify\n"; }
}
`

// calling asks nginx by curl and OpenSSL for so many seconds, as a user of group
// istio-certs. Each call takes key, chain and roots of one set: those who open
// the three files of /etc/certs one after the other may have a renewal in between.
const calling = `
calls=0; sets=; end=$(($(date +%s) + $1))
while test $(date +%s) -lt $end; do
	set=$(readlink -f /etc/certs/.citadel/current)
	case "$sets" in *" ${set##*/} "*) ;; *) sets="$sets ${set##*/} " ;; esac
	answer=$(curl --silent --show-error --fail --max-time 20 --resolve ` + serverName + `:443:$2 \
		--cert $set/cert-chain.pem --key $set/key.pem --cacert $set/root-cert.pem https://` + serverName + `/)
	test "$answer" = "hello from nginx to SUCCESS"
	printf 'GET / HTTP/1.0\r\n\r\n' | openssl s_client -quiet -ign_eof -connect $2:443 -servername ` + serverName + ` -verify_hostname ` + serverName + ` \
		-verify_return_error -cert $set/cert-chain.pem -key $set/key.pem -CAfile $set/root-cert.pem 2>/tmp/s_client | grep -q 'to SUCCESS' || { cat /tmp/s_client; exit 1; }
	calls=$((calls + 2))
done
set -- $sets
echo $calls $#`

// rotationSeconds is how long certificates change under calls.
const rotationSeconds = 60

// TestRotationUnderCalls: nginx serves with one host's files and is told of each
// new set, programs of another call it with theirs, and no call fails while both
// hosts renew every two seconds, by themselves.
func TestRotationUnderCalls(t *testing.T) {
	t.Parallel()
	server, client := start(t, "nginx"), start(t, "curl")
	server.installPackage(t)
	client.installFromSource(t)
	// At half of this life, or somewhat sooner, by times that are cut to whole seconds,
	// the agents' own loops renew every two seconds.
	server.flags(t, "--workload-cert-ttl=6s --reload-signal=/run/nginx.pid:HUP", "CapabilityBoundingSet=CAP_KILL", "AmbientCapabilities=CAP_KILL")
	client.flags(t, "--workload-cert-ttl=6s")
	for _, h := range []*host{server, client} {
		h.invite(t)
		h.run(t, "systemctl start "+unit)
	}
	server.write(t, "/etc/nginx/conf.d/mesh.conf", "0644", serving)
	server.run(t, "rm /etc/nginx/sites-enabled/default; systemctl start nginx")
	client.run(t, `
		useradd --system --groups istio-certs program; useradd --system stranger
		! setpriv --reuid=stranger --regid=stranger --init-groups cat /etc/certs/key.pem 2>/dev/null
		test "$(curl --silent --show-error --cacert /etc/certs/root-cert.pem --resolve `+serverName+`:443:`+server.address()+` https://`+serverName+`/ | grep -o "No required SSL certificate" | head -n 1)" = "No required SSL certificate"`)

	ctx, cancel := context.WithTimeout(t.Context(), rotationSeconds*time.Second+patience)
	defer cancel()
	out, err := client.Command(ctx, "nice", "--adjustment=-10", "setpriv", "--reuid=program", "--regid=program", "--init-groups",
		"sh", "-ec", calling, "sh", strconv.Itoa(rotationSeconds), server.address()).CombinedOutput()
	if err != nil {
		t.Fatalf("a call failed: %v\n%s\n%s", err, out, server.run(t, "tail /var/log/nginx/error.log"))
	}
	var calls, sets int
	if _, err := fmt.Sscan(string(out), &calls, &sets); err != nil || calls < rotationSeconds || sets < rotationSeconds/4 {
		t.Errorf("%s, %v: too few calls or sets", out, err)
	}
	served := server.supplied(t, "")
	if served.Renewals < rotationSeconds/4 || served.ReloadOwed {
		t.Errorf("%+v", served)
	}
	t.Logf("%d calls with %d sets, to %d of nginx", calls, sets, served.Renewals)
}
