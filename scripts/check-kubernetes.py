#!/usr/bin/env python3
"""Holds what is given to Kubernetes against its schemas, and against what a delegate needs there.

    check-kubernetes.py chart DIRECTORY [SET...]    renders the chart, with --set-string values in the place of its own
    check-kubernetes.py manifest FILE               takes a manifest as it is

Ends with 0 and the names of the objects, or says what is wrong.
"""

import sys

import helm_python
import kubernetes_validate
import yaml

VERSION = "1.37"
# The least that a user has to say.
LEAST = {
    "image": {"repository": "registry.example/legation-delegate"},
    "manager": {"url": "https://manager.example:7430"},
    "token": {"existingSecret": "farm-token"},
}
# Everything that a user may say, so that each branch of the templates is rendered once.
MOST = {
    "image": {"repository": "registry.example/legation-delegate", "tag": "1", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "manager": {"url": "https://manager.example:7430", "ca": {"existingConfigMap": "ca", "key": "root.pem"}},
    "token": {"existingSecret": "farm-token", "key": "value"},
    "name": "123",
    "description": "it's \"here\": {x}",
    "tags": ["gpu", "zone=a"],
    "account": "acme",
    "policy": 'kinds = ["shell"]\ninterpreters = ["/bin/sh"]\n',
    "state": {"size": "2Gi", "storageClass": "fast"},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}],
    "podAnnotations": {"a": "true"},
    "podLabels": {"b": "1"},
    "nodeSelector": {"c": "d"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
}
# What must be refused, and by which word of the refusal.
WRONG = [
    ({}, "existingSecret"),
    ({**LEAST, "terminationGracePeriodSeconds": 25}, "terminationGracePeriodSeconds"),
    ({**LEAST, "tokn": {}}, "tokn"),
    ({**LEAST, "user": 0}, "user"),
    ({**LEAST, "token": {"existingSecret": "ldt_the-value-itself"}}, "existingSecret"),
    ({**LEAST, "manager": {"url": "manager.example"}}, "url"),
]


def objects(text):
    return [document for document in yaml.safe_load_all(text) if document is not None]


def rendered(chart, values, name="farm"):
    manifests = chart.render(values, name=name, namespace="delegates")
    return [one for path, text in manifests.items() if path.endswith(".yaml") for one in objects(text)]


def check(found):
    """Every object is one that Kubernetes takes, and the pods are as harmless as a delegate can be."""
    for one in found:
        kubernetes_validate.validate(one, VERSION, strict=True)
    sets = [one for one in found if one["kind"] == "StatefulSet"]
    assert len(sets) == 1, f"one StatefulSet and not {len(sets)}"
    # With the hash of a revision behind it the name is the value of a label, which has 63 characters at most.
    assert len(sets[0]["metadata"]["name"]) <= 52, sets[0]["metadata"]["name"]
    pod = sets[0]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False, "the pod would have an account of the cluster"
    assert pod["terminationGracePeriodSeconds"] >= 40, "the delegate would be killed while its tasks end"
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
    (container,) = pod["containers"]
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] is True and security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    environment = {one["name"]: one.get("value") for one in container["env"]}
    assert "DELEGATE_TOKEN" not in environment, "the value itself would be in the manifest"
    mounts = {one["name"]: one for one in container["volumeMounts"]}
    assert environment["DELEGATE_TOKEN_FILE"].startswith(mounts["token"]["mountPath"] + "/")
    assert mounts["token"]["readOnly"] is True
    # The delegate makes its directory private, which it can do with one of its own only; and nothing below HOME or /tmp
    # is kept from tasks.
    state = environment["DELEGATE_STATE_DIR"]
    assert state.startswith(mounts["state"]["mountPath"] + "/"), state
    assert environment["HOME"] == mounts["scratch"]["mountPath"] == "/tmp" and not state.startswith("/tmp")
    port = int(environment["DELEGATE_HEALTH_ADDR"].rsplit(":", 1)[1])
    ports = {one["name"]: one["containerPort"] for one in container.get("ports", [])}
    for probe, path in [("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")]:
        asked = container[probe]["httpGet"]
        assert asked["path"] == path and ports.get(asked["port"], asked["port"]) == port, probe
    claims = [one["metadata"]["name"] for one in sets[0]["spec"]["volumeClaimTemplates"]]
    assert claims == ["state"], claims
    assert [one["secret"]["secretName"] for one in pod["volumes"] if "secret" in one], "the token comes from a Secret"
    return environment


def chart(directory, sets):
    loaded = helm_python.Chart.load(directory)
    report = helm_python.lint(directory, LEAST, strict=True)
    assert not report["errors"], report
    if sets:
        environment = check(rendered(loaded, helm_python.parse_set_string_values(",".join(sets))))
        print(environment["DELEGATE_NAME"], environment["MANAGER_HOST_AND_PORT"])
        return
    for values in (LEAST, MOST):
        found = rendered(loaded, values)
        environment = check(found)
        print(*sorted(f"{one['kind']}/{one['metadata']['name']}" for one in found))
    assert environment["DELEGATE_NAME"] == "123" and environment["DELEGATE_TAGS"] == "gpu,zone=a", environment
    assert environment["DELEGATE_DESCRIPTION"] == MOST["description"], environment
    (policy,) = [one for one in found if one["kind"] == "ConfigMap"]
    assert policy["data"]["policy.toml"] == MOST["policy"], policy
    check(rendered(loaded, LEAST, name="a-release-whose-name-has-fifty-three-characters-12345"))
    for values, word in WRONG:
        try:
            rendered(loaded, values)
        except helm_python.HelmValuesError as error:
            assert word in str(error), f"{values} was refused by another rule: {error}"
        else:
            raise AssertionError(f"{values} was taken")


def manifest(file):
    with open(file) as text:
        found = objects(text)
    environment = check(found)
    print(environment["DELEGATE_NAME"], environment["MANAGER_HOST_AND_PORT"])


if __name__ == "__main__":
    what, path, *more = sys.argv[1:]
    chart(path, more) if what == "chart" else manifest(path)
