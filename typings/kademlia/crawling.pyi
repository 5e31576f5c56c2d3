from typing import Any

from kademlia.node import Node, NodeHeap

class SpiderCrawl:
    protocol: Any
    ksize: int
    alpha: int
    node: Node
    nearest: NodeHeap
    last_ids_crawled: list[bytes]

    def __init__(self, protocol: Any, node: Node, peers: list[Node], ksize: int, alpha: int) -> None: ...

class ValueSpiderCrawl(SpiderCrawl):
    nearest_without_value: NodeHeap

    async def find(self) -> Any: ...

class NodeSpiderCrawl(SpiderCrawl):
    async def find(self) -> list[Node]: ...

class RPCFindResponse:
    response: tuple[bool, Any]

    def __init__(self, response: tuple[bool, Any]) -> None: ...
    def happened(self) -> bool: ...
    def has_value(self) -> bool: ...
    def get_value(self) -> Any: ...
    def get_node_list(self) -> list[Node]: ...
