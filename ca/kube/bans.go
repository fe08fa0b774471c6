package kube

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"citadel/ca"
)

// BansConfigMap holds the bans, in the storage namespace.
const BansConfigMap = "istio-citadel-bans"

const bansKey = "bans.json"

// What is stored is the same wherever it is stored.
type (
	// Ban is why and when somebody was banned.
	Ban = ca.Ban
	// BanList is who is banned.
	BanList = ca.BanList
)

// ReadBans returns the list, empty where there is none.
func ReadBans(ctx context.Context, client kubernetes.Interface, namespace string) (BanList, error) {
	_, list, err := readBans(ctx, client, namespace)
	return list, err
}

func readBans(ctx context.Context, client kubernetes.Interface, namespace string) (*corev1.ConfigMap, BanList, error) {
	cm, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, BansConfigMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, BanList{}, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the bans: %w", err)
	}
	list, err := ca.ParseBanList([]byte(cm.Data[bansKey]))
	if err != nil {
		return nil, nil, fmt.Errorf("ConfigMap %s/%s, key %s, %w", namespace, BansConfigMap, bansKey, err)
	}
	return cm, list, nil
}

// EditBans changes the list as one step in respect of everybody else's edits.
func EditBans(ctx context.Context, client kubernetes.Interface, namespace string, edit func(BanList) error) error {
	overtaken := func(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }
	return retry.OnError(retry.DefaultBackoff, overtaken, func() error {
		cm, list, err := readBans(ctx, client, namespace)
		if err != nil {
			return err
		}
		if err := edit(list); err != nil {
			return err
		}
		text, err := list.Encode()
		if err != nil {
			return err
		}
		maps := client.CoreV1().ConfigMaps(namespace)
		if cm == nil {
			cm = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: BansConfigMap}, Data: map[string]string{bansKey: string(text)}}
			_, err = maps.Create(ctx, cm, metav1.CreateOptions{})
		} else {
			cm.Data = map[string]string{bansKey: string(text)}
			_, err = maps.Update(ctx, cm, metav1.UpdateOptions{})
		}
		if err != nil {
			return fmt.Errorf("store the bans: %w", err)
		}
		return nil
	})
}
