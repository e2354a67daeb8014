"""ONNX graphs as torch networks, by onnx2torch, which knows operations up to opset 17."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from tasks.plugin import BadInput

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

OPSET = 17
ROWS = 2  # on which a converted network is compared with the graph
CLOSE = 1e-3


def convert_graph(path: str, where: str) -> nn.Module:
    """The network of an ONNX file. Raises BadInput, beginning with `where`, unless it computes what the graph does."""
    # imported late: of the extra `onnx`
    import onnx
    from onnx2torch import convert

    model = onnx.load(path)
    older = onnx.ModelProto()
    older.CopyFrom(model)
    if max(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")) > OPSET:
        _write_older(older)
    net: nn.Module = convert(older).eval()
    compare(net, model, where)
    return net


def _write_older(model: ModelProto) -> None:
    """Writes what is newer than OPSET in its terms, in place. What means another thing there `compare` finds."""
    import onnx  # imported late: of an optional extra

    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx"):
            opset.version = OPSET
    graph = model.graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
    nodes = [part for node in graph.node for part in _in_older_terms(node, graph, constants)]
    del graph.node[:]
    graph.node.extend(nodes)


def _in_older_terms(node: NodeProto, graph: GraphProto, constants: dict[str, Any]) -> list[NodeProto]:
    """The node, or those that do the same with older operations."""
    from onnx import helper, numpy_helper  # imported late: of an optional extra

    if node.op_type == "Identity" and node.input[0] in constants:  # a weight that two layers share
        graph.initializer.append(numpy_helper.from_array(constants[node.input[0]], node.output[0]))
        return []
    second = constants.get(node.input[1]) if len(node.input) > 1 else None
    if node.op_type.startswith("Reduce") and node.op_type != "ReduceSum" and second is not None:
        del node.input[1]
        node.attribute.append(helper.make_attribute("axes", second.tolist()))  # an input since opset 18
    if node.op_type == "Reshape" and second is not None and 0 not in second:
        kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]  # of zeros alone
        del node.attribute[:]
        node.attribute.extend(kept)
    if node.op_type != "Gelu" or any(attribute.s == b"tanh" for attribute in node.attribute):
        return [node]
    x, out = node.input[0], node.output[0]
    numbers = {f"{out}/root": math.sqrt(2), f"{out}/one": 1.0, f"{out}/half": 0.5}
    graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.float32), name) for name, value in numbers.items()
    )
    steps = [("Div", x, f"{out}/root"), ("Erf", f"{out}/0"), ("Add", f"{out}/1", f"{out}/one"),
             ("Mul", f"{out}/2", x), ("Mul", f"{out}/3", f"{out}/half")]  # fmt: skip
    outputs = [f"{out}/{i}" for i in range(4)] + [out]
    return [helper.make_node(op, list(inputs), [to]) for (op, *inputs), to in zip(steps, outputs, strict=True)]


def compare(net: nn.Module, model: ModelProto, where: str) -> None:
    """Raises BadInput unless network and graph answer random rows alike."""
    from onnx.reference import ReferenceEvaluator  # imported late: of an optional extra

    inputs = [value for value in model.graph.input if value.name not in {t.name for t in model.graph.initializer}]
    sizes = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim]
    if len(inputs) != 1 or any(size < 1 for size in sizes[1:]):
        raise BadInput(f"{where}: its graph has {len(inputs)} inputs, the first of {sizes}; export one of fixed size")
    if sizes[0] > 0:
        raise BadInput(f"{where}: its graph reads {sizes[0]} rows at a time; export it with a dynamic first dimension")
    rows = np.random.default_rng(0).random((ROWS, *sizes[1:]), dtype=np.float32)
    (expected, *_) = ReferenceEvaluator(model).run(None, {inputs[0].name: rows})
    with torch.no_grad():
        found = net(torch.from_numpy(rows)).numpy()
    apart = float(np.abs(found - expected).max() / max(1.0, float(np.abs(expected).max())))
    if not apart < CLOSE:
        raise BadInput(f"{where}: as onnx2torch reads it, its answers differ by {apart:.2g} from those of the graph")
