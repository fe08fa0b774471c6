package kube

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// leaseSight is the lease as one who does not hold it sees it. The times in it
// are another clock's: a holder is given up when the lease has not changed for
// its duration by ours.
type leaseSight struct {
	client    kubernetes.Interface
	namespace string

	version string
	since   time.Time // when version was first seen
}

// holder is the replica that leads, as far as can be told; empty when none does.
func (l *leaseSight) holder(ctx context.Context) (string, error) {
	lease, err := l.client.CoordinationV1().Leases(l.namespace).Get(ctx, LeaseName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if lease.Spec.HolderIdentity == nil {
		return "", nil
	}
	if lease.ResourceVersion != l.version {
		l.version, l.since = lease.ResourceVersion, time.Now()
	}
	if time.Since(l.since) > durationOf(lease) {
		return "", nil
	}
	return *lease.Spec.HolderIdentity, nil
}

func durationOf(lease *coordinationv1.Lease) time.Duration {
	if lease.Spec.LeaseDurationSeconds == nil {
		return 0
	}
	return time.Duration(*lease.Spec.LeaseDurationSeconds) * time.Second
}
