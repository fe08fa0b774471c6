package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// What a message may be long by its way, and how long a client may take.
const (
	udpLimit = 512
	tcpLimit = 1<<16 - 1
	patience = 5 * time.Second
)

// acceptPause is before another try where a connection could not be taken.
const acceptPause = 50 * time.Millisecond

// Serve answers on an address, by UDP and TCP, for the cluster that a kubeconfig
// names, until ctx ends.
func Serve(ctx context.Context, kubeconfig, address, domain string) error {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return err
	}
	caches := informers.NewSharedInformerFactory(client, 0)
	z := newCluster(caches)
	caches.Start(ctx.Done())
	defer caches.Shutdown()
	caches.WaitForCacheSync(ctx.Done())
	packets, listener, err := listen(address)
	if err != nil {
		return err
	}
	serve(ctx, z, packets, listener, domain+".")
	return nil
}

// listen opens the same port for UDP and TCP.
func listen(address string) (net.PacketConn, net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, nil, err
	}
	packets, err := net.ListenPacket("udp", listener.Addr().String())
	if err != nil {
		return nil, nil, errors.Join(err, listener.Close())
	}
	return packets, listener, nil
}

// serve answers until ctx ends, and closes both.
func serve(ctx context.Context, z zone, packets net.PacketConn, listener net.Listener, domain string) {
	defer context.AfterFunc(ctx, func() { packets.Close(); listener.Close() })()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { serveTCP(ctx, z, listener, domain) })
	buffer := make([]byte, tcpLimit)
	for {
		n, from, err := packets.ReadFrom(buffer)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			continue // an earlier answer that did not arrive
		}
		if answer := reply(z, domain, buffer[:n], udpLimit); answer != nil {
			_, _ = packets.WriteTo(answer, from) // who asks asks again
		}
	}
}

func serveTCP(ctx context.Context, z zone, listener net.Listener, domain string) {
	var clients sync.WaitGroup
	defer clients.Wait()
	for {
		connection, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // a client that was gone at once, or no file descriptor left
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		clients.Go(func() {
			defer connection.Close()
			defer context.AfterFunc(ctx, func() { connection.Close() })()
			for exchange(z, connection, domain) == nil {
			}
		})
	}
}

// exchange is one question and its answer, each behind its length (RFC 1035
// 4.2.2).
func exchange(z zone, connection net.Conn, domain string) error {
	_ = connection.SetDeadline(time.Now().Add(patience)) // a connection can
	var length uint16
	if err := binary.Read(connection, binary.BigEndian, &length); err != nil {
		return err
	}
	message := make([]byte, length)
	if _, err := io.ReadFull(connection, message); err != nil {
		return err
	}
	answer := reply(z, domain, message, tcpLimit)
	if answer == nil {
		return errors.New("no question")
	}
	_, err := connection.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
	return err
}
