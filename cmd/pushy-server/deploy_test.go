package main

import (
	"bytes"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// spare is the time between the end of a shutdown and the moment at which its process is killed.
const spare = 5 * time.Second

// object has what kubernetes.yaml uses of the kinds of Kubernetes. A field that is not here is an
// error, so a name that is spelled wrongly is found.
type object struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   metadata
	Data       map[string]string // of a ConfigMap
	Spec       struct {
		Replicas        int
		MinReadySeconds int `yaml:"minReadySeconds"`
		Strategy        struct {
			Type          string
			RollingUpdate struct {
				MaxUnavailable *int `yaml:"maxUnavailable"`
				MaxSurge       *int `yaml:"maxSurge"`
			} `yaml:"rollingUpdate"`
		}
		Template struct {
			Metadata metadata
			Spec     podSpec
		}
		MaxUnavailable  *int      `yaml:"maxUnavailable"` // of a PodDisruptionBudget
		Selector        yaml.Node // matchLabels, or of a Service the labels
		SessionAffinity string    `yaml:"sessionAffinity"`
		Ports           []struct {
			Name       string
			Port       int
			TargetPort string `yaml:"targetPort"`
		}
	}
}

type metadata struct {
	Name   string
	Labels map[string]string
}

type selector struct {
	MatchLabels map[string]string `yaml:"matchLabels"`
}

type podSpec struct {
	TerminationGracePeriodSeconds int `yaml:"terminationGracePeriodSeconds"`
	SecurityContext               struct {
		RunAsNonRoot   bool `yaml:"runAsNonRoot"`
		SeccompProfile struct {
			Type string
		} `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	TopologySpreadConstraints []struct {
		MaxSkew           int      `yaml:"maxSkew"`
		TopologyKey       string   `yaml:"topologyKey"`
		WhenUnsatisfiable string   `yaml:"whenUnsatisfiable"`
		LabelSelector     selector `yaml:"labelSelector"`
	} `yaml:"topologySpreadConstraints"`
	Containers []container
	Volumes    []struct {
		Name      string
		ConfigMap struct {
			Name string
		} `yaml:"configMap"`
	}
}

type container struct {
	Name  string
	Image string
	Args  []string
	Ports []struct {
		Name          string
		ContainerPort int `yaml:"containerPort"`
	}
	Env []struct {
		Name, Value string
		ValueFrom   struct {
			SecretKeyRef struct {
				Name, Key string
			} `yaml:"secretKeyRef"`
		} `yaml:"valueFrom"`
	}
	ReadinessProbe probe `yaml:"readinessProbe"`
	LivenessProbe  probe `yaml:"livenessProbe"`
	Resources      struct {
		Requests, Limits struct {
			CPU, Memory string
		}
	}
	SecurityContext struct {
		AllowPrivilegeEscalation bool `yaml:"allowPrivilegeEscalation"`
		ReadOnlyRootFilesystem   bool `yaml:"readOnlyRootFilesystem"`
		Capabilities             struct {
			Drop []string
		}
	} `yaml:"securityContext"`
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
}

type probe struct {
	HTTPGet struct {
		Path, Port string
	} `yaml:"httpGet"`
	PeriodSeconds    int `yaml:"periodSeconds"`
	TimeoutSeconds   int `yaml:"timeoutSeconds"`
	FailureThreshold int `yaml:"failureThreshold"`
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// kubernetes reads docs/operations/kubernetes.yaml.
func kubernetes(t *testing.T) map[string]object {
	t.Helper()
	text, err := os.ReadFile("../../docs/operations/kubernetes.yaml")
	require.NoError(t, err)
	all := map[string]object{}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	for {
		var o object
		err := dec.Decode(&o)
		if err == io.EOF {
			return all
		}
		require.NoError(t, err)
		kind := o.Kind + " " + o.APIVersion
		require.NotContains(t, all, kind)
		assert.Equal(t, "pushy", o.Metadata.Name)
		all[kind] = o
	}
}

// The names and labels of docs/operations/kubernetes.yaml fit each other, the config is one that
// pushy-server accepts, and the pods have enough time: to be taken out of the service before their
// connections are closed, and to end before they are killed.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	all := kubernetes(t)
	require.Len(t, all, 4)
	deployment, service := all["Deployment apps/v1"].Spec, all["Service v1"].Spec
	pod := deployment.Template.Spec
	require.Len(t, pod.Containers, 1)
	c := pod.Containers[0]

	cfg, err := parseConfig([]byte(all["ConfigMap v1"].Data["config.json"]), secret)
	require.NoError(t, err)
	assert.Empty(t, cfg.warnings)
	assert.Equal(t, defaultDrainTimeout, cfg.drainTimeout)
	assert.GreaterOrEqual(t, seconds(pod.TerminationGracePeriodSeconds), cfg.drainDelay+cfg.drainTimeout+spare)
	ready := c.ReadinessProbe
	assert.Less(t, seconds(ready.PeriodSeconds*ready.FailureThreshold), cfg.drainDelay)
	assert.Equal(t, []string{"/readyz", "/healthz"}, []string{ready.HTTPGet.Path, c.LivenessProbe.HTTPGet.Path})
	assert.Equal(t, []string{"http", "http"}, []string{ready.HTTPGet.Port, c.LivenessProbe.HTTPGet.Port})
	require.Len(t, c.Ports, 2)
	assert.Equal(t, "http "+strconv.Itoa(cfg.port), c.Ports[0].Name+" "+strconv.Itoa(c.Ports[0].ContainerPort))
	_, metricsPort, _ := strings.Cut(cfg.metrics.listen, ":")
	assert.Equal(t, "metrics "+metricsPort, c.Ports[1].Name+" "+strconv.Itoa(c.Ports[1].ContainerPort))
	require.Len(t, service.Ports, 1)
	assert.Equal(t, "http", service.Ports[0].TargetPort)

	assert.Equal(t, []string{c.VolumeMounts[0].MountPath + "/config.json"}, c.Args)
	assert.Equal(t, c.VolumeMounts[0].Name, pod.Volumes[0].Name)
	assert.Equal(t, "pushy", pod.Volumes[0].ConfigMap.Name)
	assert.Equal(t, "PUSHY_SECRET_KEY", c.Env[0].Name)
	limit, inGi := strings.CutSuffix(c.Resources.Limits.Memory, "Gi")
	gib, err := strconv.Atoi(limit)
	require.NoError(t, err)
	require.True(t, inGi)
	mib, err := strconv.Atoi(strings.TrimSuffix(c.Env[1].Value, "MiB"))
	require.NoError(t, err)
	assert.InDelta(t, 0.85, float64(mib)/float64(gib*1024), 0.01, "GOMEMLIMIT")

	labels := deployment.Template.Metadata.Labels
	var ofService map[string]string
	require.NoError(t, service.Selector.Decode(&ofService))
	assert.Equal(t, labels, ofService)
	for _, kind := range []string{"Deployment apps/v1", "PodDisruptionBudget policy/v1"} {
		node := all[kind].Spec.Selector
		var s selector
		require.NoError(t, node.Decode(&s))
		assert.Equal(t, labels, s.MatchLabels, kind)
	}
	assert.Equal(t, labels, pod.TopologySpreadConstraints[0].LabelSelector.MatchLabels)
	assert.Equal(t, 0, *deployment.Strategy.RollingUpdate.MaxUnavailable)
	assert.Equal(t, 1, *deployment.Strategy.RollingUpdate.MaxSurge)
	assert.Equal(t, 1, *all["PodDisruptionBudget policy/v1"].Spec.MaxUnavailable)
}

// systemd and Docker give a shutdown with the default options enough time.
func TestStopTimeouts(t *testing.T) {
	t.Parallel()
	for file, pattern := range map[string]string{
		"pushy-server.service":     `(?m)^TimeoutStopSec=(\d+)$`,
		"../../Dockerfile":         `--stop-timeout (\d+)`,
		"../../docs/deployment.md": "`--stop-timeout (\\d+)`",
	} {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		found := regexp.MustCompile(pattern).FindSubmatch(text)
		require.NotNil(t, found, file)
		n, err := strconv.Atoi(string(found[1]))
		require.NoError(t, err)
		assert.GreaterOrEqual(t, seconds(n), defaultDrainTimeout+spare, file)
	}
}
