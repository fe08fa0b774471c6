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
// are another clock's: replicas are given up when the lease has not changed for
// long by ours. One that has just been given back, or whose holder has died, is
// about to be another's.
type leaseSight struct {
	client    kubernetes.Interface
	namespace string

	version string
	since   time.Time // when version was first seen
}

// stillTime is the least that a lease must not change for before nobody is taken
// to be there: followers need its duration and two attempts to take it.
const stillTime = 30 * time.Second

// holder is the replica that leads or is about to, as far as can be told; empty
// when there is none.
func (l *leaseSight) holder(ctx context.Context) (string, error) {
	lease, err := l.client.CoordinationV1().Leases(l.namespace).Get(ctx, LeaseName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if l.since.IsZero() || lease.ResourceVersion != l.version {
		l.version, l.since = lease.ResourceVersion, time.Now()
	}
	if time.Since(l.since) > max(2*durationOf(lease), stillTime) {
		return "", nil
	}
	if holder := lease.Spec.HolderIdentity; holder != nil && *holder != "" {
		return *holder, nil
	}
	return "(the next to take the lease)", nil
}

func durationOf(lease *coordinationv1.Lease) time.Duration {
	if lease.Spec.LeaseDurationSeconds == nil {
		return 0
	}
	return time.Duration(*lease.Spec.LeaseDurationSeconds) * time.Second
}
