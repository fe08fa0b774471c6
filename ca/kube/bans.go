package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

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

// Ban is why and when somebody was banned.
type Ban struct {
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
}

// BanList is who is banned, by SPIFFE ID or serial number, as a person wrote
// it.
type BanList map[string]Ban

// Bans makes of the list what an authority goes by.
func (l BanList) Bans() (ca.Bans, error) {
	reasons := map[string]string{}
	for whom, ban := range l {
		reasons[whom] = ban.Reason
	}
	return ca.NewBans(reasons)
}

// ReadBans returns the list, empty where there is none.
func ReadBans(ctx context.Context, client kubernetes.Interface, namespace string) (BanList, error) {
	_, list, err := readBans(ctx, client, namespace)
	return list, err
}

func readBans(ctx context.Context, client kubernetes.Interface, namespace string) (*corev1.ConfigMap, BanList, error) {
	list := BanList{}
	cm, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, BansConfigMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, list, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the bans: %w", err)
	}
	if text := cm.Data[bansKey]; text != "" {
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return nil, nil, fmt.Errorf("ConfigMap %s/%s, key %s, is damaged: %w", namespace, BansConfigMap, bansKey, err)
		}
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
		if _, err := list.Bans(); err != nil {
			return err
		}
		text, err := json.MarshalIndent(list, "", "  ")
		if err != nil {
			return fmt.Errorf("encode the bans: %w", err)
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
