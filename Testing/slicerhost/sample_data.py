"""Stand-in for Slicer's SampleData module: keeps what modules register, and downloads nothing."""

import logging
from dataclasses import dataclass, field

import slicer


@dataclass
class SampleDataSource:
    sampleName: str
    sampleDescription: str | None = None
    uris: list = field(default_factory=list)
    fileNames: list = field(default_factory=list)
    nodeNames: list = field(default_factory=list)
    checksums: list = field(default_factory=list)
    loadFiles: list = field(default_factory=list)
    customDownloader: object = None
    thumbnailFileName: str | None = None
    loadFileTypes: list = field(default_factory=list)
    loadFileProperties: dict = field(default_factory=dict)


def _list(value):
    return list(value) if isinstance(value, (list, tuple)) else [] if value is None else [value]


class SampleDataLogic:
    @staticmethod
    def registerCustomSampleDataSource(
        category="Custom",
        sampleName=None,
        uris=None,
        fileNames=None,
        nodeNames=None,
        customDownloader=None,
        thumbnailFileName=None,
        loadFileTypes=None,
        loadFiles=None,
        loadFileProperties=None,
        checksums=None,
        sampleDescription=None,
    ):
        if not sampleName:
            raise ValueError("a sample data source needs a name")
        source = SampleDataSource(
            sampleName=sampleName,
            sampleDescription=sampleDescription,
            uris=_list(uris),
            fileNames=_list(fileNames),
            nodeNames=_list(nodeNames),
            checksums=_list(checksums),
            loadFiles=_list(loadFiles),
            customDownloader=customDownloader,
            thumbnailFileName=thumbnailFileName,
            loadFileTypes=_list(loadFileTypes),
            loadFileProperties=loadFileProperties or {},
        )
        slicer.modules.sampleDataSources.setdefault(category, []).append(source)

    def logMessage(self, message, logLevel=logging.INFO):
        logging.log(logLevel, message)

    def sourceForSampleName(self, sampleName):
        for sources in slicer.modules.sampleDataSources.values():
            for source in sources:
                if source.sampleName == sampleName:
                    return source
        return None

    def downloadFromSource(self, source, **_options):
        """Calls the source's own downloader; a source of files from the internet is an error here."""
        if source.customDownloader is None:
            raise RuntimeError(f"the test host does not download '{source.sampleName}'")
        return source.customDownloader(source)

    def downloadSamples(self, sampleName):
        source = self.sourceForSampleName(sampleName)
        if source is None:
            raise RuntimeError(f"no sample data is called '{sampleName}'")
        return self.downloadFromSource(source)

    def downloadSample(self, sampleName):
        nodes = self.downloadSamples(sampleName)
        return nodes[0] if isinstance(nodes, (list, tuple)) else nodes


def downloadSample(sampleName):
    return SampleDataLogic().downloadSample(sampleName)


def downloadSamples(sampleName):
    return SampleDataLogic().downloadSamples(sampleName)
